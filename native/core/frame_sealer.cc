// See frame_sealer.h.
#include "frame_sealer.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <array>
#include <cstring>

namespace smbpool {

namespace {

constexpr size_t kKeyBytes = 32;
constexpr size_t kNonceBytes = 12;
constexpr char kPurpose[] = "smbpool frame v1";

using Key = std::array<uint8_t, kKeyBytes>;
using Nonce = std::array<uint8_t, kNonceBytes>;

// The number is unique under a key, so it is the nonce; the rest stays zero.
Nonce NonceOf(uint64_t number) noexcept {
  Nonce nonce{};
  PutLittle(nonce.data(), number);
  return nonce;
}

bool DeriveKey(const PoolSecret& secret, const std::vector<uint8_t>& info, Key* key) noexcept {
  EVP_KDF* kdf = EVP_KDF_fetch(nullptr, "HKDF", nullptr);
  if (kdf == nullptr) return false;
  EVP_KDF_CTX* context = EVP_KDF_CTX_new(kdf);
  EVP_KDF_free(kdf);
  if (context == nullptr) return false;
  char digest[] = "SHA256";
  // OpenSSL's parameters are not const, but only read
  auto* secret_key = const_cast<uint8_t*>(secret.key.data());
  auto* salt = const_cast<uint8_t*>(secret.name.data());
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, secret_key, secret.key.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt, secret.name.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, const_cast<uint8_t*>(info.data()), info.size()),
      OSSL_PARAM_construct_end(),
  };
  const bool derived = EVP_KDF_derive(context, key->data(), key->size(), parameters) > 0;
  EVP_KDF_CTX_free(context);
  return derived;
}

}  // namespace

FrameSealer& FrameSealer::operator=(FrameSealer&& other) noexcept {
  if (this != &other) {
    EVP_CIPHER_CTX_free(context_);
    context_ = other.context_;
    other.context_ = nullptr;
  }
  return *this;
}

FrameSealer::~FrameSealer() { EVP_CIPHER_CTX_free(context_); }

bool FrameSealer::Prepare(const PoolSecret& secret, uint16_t from, uint16_t to, uint64_t incarnation,
                          Direction direction) noexcept {
  std::vector<uint8_t> info(kPurpose, kPurpose + sizeof(kPurpose) - 1);
  uint8_t identity[12];
  PutLittle(identity, from);
  PutLittle(identity + 2, to);
  PutLittle(identity + 4, incarnation);
  info.insert(info.end(), identity, identity + sizeof(identity));
  Key key;
  if (!DeriveKey(secret, info, &key)) return false;
  if (context_ == nullptr) context_ = EVP_CIPHER_CTX_new();
  bool ready = context_ != nullptr;
  if (ready) {
    const EVP_CIPHER* cipher = EVP_aes_256_gcm();
    ready = direction == Direction::kSeal
                ? EVP_EncryptInit_ex(context_, cipher, nullptr, key.data(), nullptr) == 1
                : EVP_DecryptInit_ex(context_, cipher, nullptr, key.data(), nullptr) == 1;
  }
  OPENSSL_cleanse(key.data(), key.size());
  return ready;
}

bool FrameSealer::Seal(uint64_t number, const uint8_t* header, const uint8_t* body, size_t body_length,
                       uint8_t* out) noexcept {
  const Nonce nonce = NonceOf(number);
  int written = 0;
  int last = 0;
  return EVP_EncryptInit_ex(context_, nullptr, nullptr, nullptr, nonce.data()) == 1 &&
         EVP_EncryptUpdate(context_, nullptr, &written, header, static_cast<int>(kFrameHeaderBytes)) == 1 &&
         EVP_EncryptUpdate(context_, out, &written, body, static_cast<int>(body_length)) == 1 &&
         EVP_EncryptFinal_ex(context_, out + written, &last) == 1 &&
         EVP_CIPHER_CTX_ctrl(context_, EVP_CTRL_AEAD_GET_TAG, static_cast<int>(kFrameSealBytes),
                             out + body_length) == 1;
}

bool FrameSealer::Open(uint64_t number, const uint8_t* header, const uint8_t* sealed, size_t sealed_length,
                       uint8_t* out) noexcept {
  if (sealed_length < kFrameSealBytes) return false;
  const size_t body_length = sealed_length - kFrameSealBytes;
  const Nonce nonce = NonceOf(number);
  uint8_t seal[kFrameSealBytes];
  std::memcpy(seal, sealed + body_length, kFrameSealBytes);
  int written = 0;
  int last = 0;
  return EVP_DecryptInit_ex(context_, nullptr, nullptr, nullptr, nonce.data()) == 1 &&
         EVP_DecryptUpdate(context_, nullptr, &written, header, static_cast<int>(kFrameHeaderBytes)) == 1 &&
         EVP_DecryptUpdate(context_, out, &written, sealed, static_cast<int>(body_length)) == 1 &&
         EVP_CIPHER_CTX_ctrl(context_, EVP_CTRL_AEAD_SET_TAG, static_cast<int>(kFrameSealBytes), seal) == 1 &&
         EVP_DecryptFinal_ex(context_, out + written, &last) == 1;
}

}  // namespace smbpool
