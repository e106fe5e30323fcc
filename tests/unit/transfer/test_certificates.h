// Certificates for tests of TLS: an authority, and certificates that it signs for given names.
#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>

#include "agent/base/check.h"
#include "agent/transfer/tls.h"
#include "tests/harness/temp_dir.h"

namespace metal::transfer {

class TestAuthority {
 public:
  explicit TestAuthority(const testing::TempDir& dir, std::string name = "ca")
      : dir_(dir), name_(std::move(name)), key_(EVP_EC_gen("P-256")) {
    certificate_ = Make(name_, key_, "", name_);
    WritePem(dir_.Write(name_ + ".pem", ""), certificate_, nullptr);
  }
  ~TestAuthority() {
    X509_free(certificate_);
    EVP_PKEY_free(key_);
  }

  // `names`: "DNS:node.test,IP:127.0.0.1".
  TlsFiles Issue(const std::string& file, const std::string& names) {
    EVP_PKEY* const key = EVP_EC_gen("P-256");
    X509* const certificate = Make(file, key, names, name_);
    TlsFiles files{dir_.Write(file + ".pem", ""), dir_.Write(file + ".key", ""),
                   dir_.File(name_ + ".pem")};
    WritePem(files.certificate, certificate, nullptr);
    WritePem(files.key, nullptr, key);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return files;
  }

 private:
  static void AddExtension(X509* certificate, int nid, const std::string& value) {
    X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value.c_str());
    METAL_CHECK(extension != nullptr);
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }
  static void AddName(X509_NAME* to, const std::string& name) {
    X509_NAME_add_entry_by_txt(to, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  }

  X509* Make(const std::string& subject, EVP_PKEY* key, const std::string& names,
             const std::string& issuer) {
    X509* const certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial_);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 24 * 3600);
    X509_set_pubkey(certificate, key);
    AddName(X509_get_subject_name(certificate), subject);
    X509_NAME* const issuer_name = X509_NAME_new();
    AddName(issuer_name, issuer);
    X509_set_issuer_name(certificate, issuer_name);
    X509_NAME_free(issuer_name);
    if (names.empty()) {
      AddExtension(certificate, NID_basic_constraints, "critical,CA:TRUE");
    } else {
      AddExtension(certificate, NID_subject_alt_name, names);
    }
    METAL_CHECK(X509_sign(certificate, key_, EVP_sha256()) > 0);
    return certificate;
  }

  static void WritePem(const std::string& path, X509* certificate, EVP_PKEY* key) {
    BIO* const file = BIO_new_file(path.c_str(), "w");
    METAL_CHECK(file != nullptr);
    if (certificate != nullptr) METAL_CHECK(PEM_write_bio_X509(file, certificate) == 1);
    if (key != nullptr) {
      METAL_CHECK(PEM_write_bio_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr) == 1);
    }
    BIO_free(file);
  }

  const testing::TempDir& dir_;
  const std::string name_;
  EVP_PKEY* const key_;
  X509* certificate_ = nullptr;
  long serial_ = 0;
};

}  // namespace metal::transfer
