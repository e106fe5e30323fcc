// TLS of the transfer connections: version 1.3 alone, AES-GCM, both sides show a certificate that
// the configured authority signed. Files are read anew for each connection, so new certificates
// need no restart. Threading: pure functions that read files; a context serves one connection.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace metal::transfer {

// PEM files; all empty: no TLS.
struct TlsFiles {
  std::string certificate, key, authority;
  bool enabled() const { return !certificate.empty(); }
};

struct FreeSsl {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* ssl) const { SSL_free(ssl); }
};
using UniqueContext = std::unique_ptr<SSL_CTX, FreeSsl>;
using UniqueSsl = std::unique_ptr<SSL, FreeSsl>;

enum class TlsSide { kServer, kClient };

// A session on the connected socket `fd`, before its handshake. A client checks that the server's
// certificate is for `host`, a name or an address. FAILED_PRECONDITION names the file that cannot
// be used. Does not own `fd`.
absl::StatusOr<UniqueSsl> MakeSession(const TlsFiles& files, TlsSide side, int fd,
                                      const std::string& host);

// DNS and URI subject alternative names of the peer's certificate.
std::vector<std::string> PeerNames(const SSL* ssl);

// What OpenSSL's error queue of this thread says, in one line; empties it.
std::string TakeTlsErrors();

}  // namespace metal::transfer
