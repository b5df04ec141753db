// See address_calls.h.
#include "address_calls.h"

#include <string>
#include <utility>
#include <vector>

#include "../core/addresses.h"
#include "../core/pump.h"
#include "errors.h"

namespace smbpool {

namespace {

struct Place {
  std::string interface;
  std::string text;
  IpAddress address;
  uint8_t prefix_length = 0;
};

IpAddress AddressOf(Napi::Env env, const std::string& text) {
  IpAddress address;
  if (ParseIpAddress(text, &address)) return address;
  throw CodeError(env, "ERR_INVALID_ARG_TYPE", text + " is no IP address");
}

Napi::Object OptionsArgument(const Napi::CallbackInfo& info) {
  if (!info[0].IsObject()) throw CodeError(info.Env(), "ERR_INVALID_ARG_TYPE", "argument 1 must be an object");
  return info[0].As<Napi::Object>();
}

Place PlaceOf(const Napi::Object& options) {
  Place place;
  place.interface = StringMember(options, "interface");
  place.text = StringMember(options, "address");
  place.address = AddressOf(options.Env(), place.text);
  place.prefix_length = static_cast<uint8_t>(NumberMember(options, "prefixLength"));
  return place;
}

std::string Where(const Place& place) { return place.interface + " (" + place.text + ")"; }

// Work in a libuv thread whose status, when failed, rejects the promise.
class Call : public Napi::AsyncWorker {
 public:
  Call(Napi::Env env, Place place)
      : Napi::AsyncWorker(env), place_(std::move(place)), deferred_(Napi::Promise::Deferred::New(env)) {}
  Napi::Promise Start() {
    Napi::Promise promise = deferred_.Promise();
    Queue();
    return promise;
  }

 protected:
  virtual Napi::Value Answer() = 0;
  void OnOK() override {
    if (status_.ok()) deferred_.Resolve(Answer());
    else deferred_.Reject(StatusError(Env(), status_, Where(place_)).Value());
  }

  Place place_;
  Status status_;

 private:
  Napi::Promise::Deferred deferred_;
};

class TakeCall final : public Call {
 public:
  TakeCall(Napi::Env env, const Napi::Object& options) : Call(env, PlaceOf(options)) {
    lifetime_ = static_cast<uint32_t>(NumberMember(options, "lifetimeSeconds"));
    deadline_ = NumberMember(options, "deadlineMicros");
    announce_ = options.Get("announce").ToBoolean();
    const auto tickle = options.Get("tickle").As<Napi::Array>();
    for (uint32_t i = 0; i < tickle.Length(); i++) {
      const auto one = tickle.Get(i).As<Napi::Object>();
      TcpConnection connection;
      connection.server = AddressOf(env, StringMember(one, "server"));
      connection.server_port = static_cast<uint16_t>(NumberMember(one, "serverPort"));
      connection.client = AddressOf(env, StringMember(one, "client"));
      connection.client_port = static_cast<uint16_t>(NumberMember(one, "clientPort"));
      tickle_.push_back(connection);
    }
  }

 protected:
  void Execute() override {
    // the process may have stood still since it was decided
    if (static_cast<double>(Pump::Now()) >= deadline_) {
      status_ = Failed("take the address after the lease's end on", ECANCELED);
      return;
    }
    status_ = AddAddress(place_.interface.c_str(), place_.address, place_.prefix_length, lifetime_);
    if (!status_.ok() || !announce_) return;
    // before others send here: what comes too early is lost
    announced_ = AwaitAddress(place_.address);
    if (!announced_.ok()) return;
    UniqueFd closed_last;
    announced_ = AnnounceAddress(place_.interface.c_str(), place_.address, &closed_last);
    const Status tickled = TickleClients(place_.interface.c_str(), tickle_);
    if (announced_.ok()) announced_ = tickled;
  }
  Napi::Value Answer() override {
    const std::string text = announced_.ok() ? "" : StatusError(Env(), announced_, Where(place_)).Message();
    return Napi::String::New(Env(), text);
  }

 private:
  uint32_t lifetime_ = 0;
  double deadline_ = 0;
  bool announce_ = false;
  std::vector<TcpConnection> tickle_;
  Status announced_;
};

class ReleaseCall final : public Call {
 public:
  using Call::Call;

 protected:
  void Execute() override {
    status_ = DeleteAddress(place_.interface.c_str(), place_.address, &was_there_);
    if (status_.ok()) end_ = EndConnections(place_.address, &ended_);
  }
  Napi::Value Answer() override {
    Napi::Object answer = Napi::Object::New(Env());
    answer.Set("wasThere", Napi::Boolean::New(Env(), was_there_));
    answer.Set("ended", Napi::Number::New(Env(), static_cast<double>(ended_)));
    answer.Set("why", Napi::String::New(Env(), end_.ok() ? "" : StatusError(Env(), end_, Where(place_)).Message()));
    return answer;
  }

 private:
  bool was_there_ = false;
  size_t ended_ = 0;
  Status end_;
};

}  // namespace

Napi::Value TakeAddressFunction(const Napi::CallbackInfo& info) {
  const Napi::Object options = OptionsArgument(info);
  if (!options.Get("tickle").IsArray()) {
    throw CodeError(info.Env(), "ERR_INVALID_ARG_TYPE", "tickle must be an array");
  }
  return (new TakeCall(info.Env(), options))->Start();
}

Napi::Value ReleaseAddressFunction(const Napi::CallbackInfo& info) {
  return (new ReleaseCall(info.Env(), PlaceOf(OptionsArgument(info))))->Start();
}

Napi::Value RemoveAddressFunction(const Napi::CallbackInfo& info) {
  const Place place = PlaceOf(OptionsArgument(info));
  bool was_there = false;
  const Status status = DeleteAddress(place.interface.c_str(), place.address, &was_there);
  if (!status.ok()) throw StatusError(info.Env(), status, Where(place));
  return Napi::Boolean::New(info.Env(), was_there);
}

}  // namespace smbpool
