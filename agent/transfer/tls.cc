#include "agent/transfer/tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "agent/base/status.h"

namespace metal::transfer {
namespace {

// The shorter key first: a clone is bound by the processor on small hosts.
constexpr const char* kCiphers = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384";
// Several records in one read(2).
constexpr size_t kReadBuffer = 256 << 10;

absl::Status BadFile(std::string_view what, const std::string& path) {
  return base::Error(absl::StatusCode::kFailedPrecondition,
                     "transfer: cannot use the {} {}: {}. HINT: check [tls] in the configuration",
                     what, path, TakeTlsErrors());
}

absl::StatusOr<UniqueContext> MakeContext(const TlsFiles& files, TlsSide side) {
  ERR_clear_error();
  UniqueContext context(
      SSL_CTX_new(side == TlsSide::kServer ? TLS_server_method() : TLS_client_method()));
  if (context == nullptr) return absl::ResourceExhaustedError("transfer: no TLS context");
  SSL_CTX* const raw = context.get();
  SSL_CTX_set_min_proto_version(raw, TLS1_3_VERSION);
  SSL_CTX_set_ciphersuites(raw, kCiphers);
  SSL_CTX_set_mode(raw, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(raw, 1);
  SSL_CTX_set_default_read_buffer_len(raw, kReadBuffer);
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(raw, 0);
  if (SSL_CTX_use_certificate_chain_file(raw, files.certificate.c_str()) != 1) {
    return BadFile("certificate", files.certificate);
  }
  if (SSL_CTX_use_PrivateKey_file(raw, files.key.c_str(), SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_check_private_key(raw) != 1) {
    return BadFile("key", files.key);
  }
  if (SSL_CTX_load_verify_locations(raw, files.authority.c_str(), nullptr) != 1) {
    return BadFile("authority", files.authority);
  }
  SSL_CTX_set_verify(raw, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return context;
}

bool IsAddress(const std::string& host) {
  in6_addr buffer;
  return inet_pton(AF_INET, host.c_str(), &buffer) == 1 ||
         inet_pton(AF_INET6, host.c_str(), &buffer) == 1;
}

bool ExpectHost(SSL* ssl, const std::string& host) {
  if (IsAddress(host)) {
    return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str()) == 1;
  }
  return SSL_set1_host(ssl, host.c_str()) == 1 && SSL_set_tlsext_host_name(ssl, host.c_str()) == 1;
}

}  // namespace

std::string TakeTlsErrors() {
  std::string text;
  char line[256];
  while (const unsigned long error = ERR_get_error()) {
    ERR_error_string_n(error, line, sizeof line);
    if (!text.empty()) text += "; ";
    text += line;
  }
  return text.empty() ? "no reason given" : text;
}

absl::StatusOr<UniqueSsl> MakeSession(const TlsFiles& files, TlsSide side, int fd,
                                      const std::string& host) {
  METAL_ASSIGN_OR_RETURN(const UniqueContext context, MakeContext(files, side));
  UniqueSsl ssl(SSL_new(context.get()));  // holds its context from here on
  if (ssl == nullptr || SSL_set_fd(ssl.get(), fd) != 1 ||
      (side == TlsSide::kClient && !ExpectHost(ssl.get(), host))) {
    return base::Error(absl::StatusCode::kInternal, "transfer: TLS: {}", TakeTlsErrors());
  }
  return ssl;
}

std::vector<std::string> PeerNames(const SSL* ssl) {
  std::vector<std::string> names;
  X509* const certificate = SSL_get0_peer_certificate(ssl);
  if (certificate == nullptr) return names;
  auto* const alternatives = static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; i < sk_GENERAL_NAME_num(alternatives); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(alternatives, i);
    if (name->type != GEN_DNS && name->type != GEN_URI) continue;
    const ASN1_IA5STRING* text = name->d.ia5;
    names.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                       static_cast<size_t>(ASN1_STRING_length(text)));
  }
  GENERAL_NAMES_free(alternatives);
  return names;
}

}  // namespace metal::transfer
