#include "agent/backup/sha256.h"

#include "agent/backup/text_fields.h"
#include "agent/base/check.h"

namespace metal::backup {

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  METAL_CHECK(context_ != nullptr);
  METAL_CHECK(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
}

void Sha256::Update(std::string_view bytes) {
  METAL_CHECK(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
}

std::string Sha256::Finish() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  METAL_CHECK(EVP_DigestFinal_ex(context_.get(), digest, &length) == 1);
  return HexOf({digest, length});
}

std::string Sha256Of(std::string_view bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.Finish();
}

}  // namespace metal::backup
