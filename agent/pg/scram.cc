#include "agent/pg/scram.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <algorithm>
#include <array>

#include "agent/base/status.h"

namespace metal::pg {
namespace {

using Key = std::array<unsigned char, SHA256_DIGEST_LENGTH>;

constexpr int kIterations = 4096;  // the server's default
constexpr size_t kSaltBytes = 16;

const unsigned char* Bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

Key Hmac(const Key& key, std::string_view text) {
  Key result{};
  unsigned int length = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), Bytes(text), text.size(),
       result.data(), &length);
  return result;
}

std::string Base64(const unsigned char* bytes, size_t size) {
  std::string text((size + 2) / 3 * 4 + 1, '\0');
  const int length =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), bytes, static_cast<int>(size));
  text.resize(static_cast<size_t>(length));
  return text;
}

}  // namespace

absl::StatusOr<std::string> ScramVerifier(std::string_view password) {
  std::array<unsigned char, kSaltBytes> salt{};
  if (RAND_bytes(salt.data(), static_cast<int>(salt.size())) != 1) {
    return absl::InternalError("no random bytes for a password's salt");
  }
  return ScramVerifier(password,
                       std::string_view(reinterpret_cast<const char*>(salt.data()), salt.size()),
                       kIterations);
}

absl::StatusOr<std::string> ScramVerifier(std::string_view password, std::string_view salt,
                                          int iterations) {
  const bool plain = std::ranges::all_of(password, [](char c) { return c >= 0x20 && c < 0x7f; });
  if (password.empty() || !plain) {
    return absl::InvalidArgumentError(
        "the password is empty or holds other characters than printable ASCII");
  }
  Key salted{};
  if (PKCS5_PBKDF2_HMAC(password.data(), static_cast<int>(password.size()), Bytes(salt),
                        static_cast<int>(salt.size()), iterations, EVP_sha256(),
                        static_cast<int>(salted.size()), salted.data()) != 1) {
    return absl::InternalError("PBKDF2 failed");
  }
  const Key client = Hmac(salted, "Client Key");
  Key stored{};
  SHA256(client.data(), client.size(), stored.data());
  const Key server = Hmac(salted, "Server Key");
  return fmt::format("SCRAM-SHA-256${}:{}${}:{}", iterations, Base64(Bytes(salt), salt.size()),
                     Base64(stored.data(), stored.size()), Base64(server.data(), server.size()));
}

}  // namespace metal::pg
