// SHA-256 of a stream of bytes. Threading: not thread-safe.
#pragma once

#include <openssl/evp.h>

#include <memory>
#include <string>
#include <string_view>

namespace metal::backup {

class Sha256 {
 public:
  Sha256();
  void Update(std::string_view bytes);
  // 64 lower-case hex digits; the object is used up.
  std::string Finish();

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> context_;
};

std::string Sha256Of(std::string_view bytes);

}  // namespace metal::backup
