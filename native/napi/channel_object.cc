// See channel_object.h.
#include "channel_object.h"

#include <string>
#include <utility>

#include "errors.h"

namespace smbpool {

namespace {
constexpr napi_type_tag kTag = {0x534d42504f4f4c00, 0x6368616e00000001};

uint16_t NodeNumber(Napi::Env env, double value) {
  if (!(value >= 0 && value < static_cast<double>(kNodesMax))) {
    throw CodeError(env, "ERR_OUT_OF_RANGE", "a node id must be a number from 0 to " + std::to_string(kNodesMax - 1));
  }
  return static_cast<uint16_t>(value);
}
}  // namespace

ChannelOptions ReadChannelOptions(const Napi::Object& options) {
  const Napi::Env env = options.Env();
  ChannelOptions native;
  native.self = NodeNumber(env, NumberMember(options, "self"));
  const Napi::Value members = options.Get("members");
  if (!members.IsArray()) throw CodeError(env, "ERR_INVALID_ARG_TYPE", "members must be an array");
  const auto list = members.As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); i++) {
    const Napi::Value member = list.Get(i);
    if (!member.IsNumber()) throw CodeError(env, "ERR_INVALID_ARG_TYPE", "members must hold numbers");
    native.members.push_back(NodeNumber(env, member.As<Napi::Number>().DoubleValue()));
  }
  native.incarnation = static_cast<uint64_t>(NumberMember(options, "incarnation"));
  const std::string name = StringMember(options, "poolName");
  native.secret.name.assign(name.begin(), name.end());
  native.secret.key = BytesMember(options, "poolKey");
  if (!FrameChannel::Valid(native)) {
    throw CodeError(env, "ERR_INVALID_ARG_VALUE",
                    "poolKey must not be empty and incarnation must be a whole number from 1 to 2^53 - 1");
  }
  return native;
}

Napi::Function ChannelObject::Define(Napi::Env env) {
  return DefineClass(env, "FrameChannel",
                     {
                         InstanceMethod<&ChannelObject::Seal>("seal"),
                         InstanceMethod<&ChannelObject::Open>("open"),
                         InstanceMethod<&ChannelObject::ReadCounters>("counters"),
                     });
}

ChannelObject::ChannelObject(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<ChannelObject>(info), scratch_(kFrameBytesMax) {
  info.This().As<Napi::Object>().TypeTag(&kTag);
  if (!info[0].IsObject()) throw CodeError(info.Env(), "ERR_INVALID_ARG_TYPE", "argument 1 must be an object");
  channel_ = std::make_unique<FrameChannel>(ReadChannelOptions(info[0].As<Napi::Object>()), &counters_);
}

// seal(peer, body): the frame, or null when it cannot be sent.
Napi::Value ChannelObject::Seal(const Napi::CallbackInfo& info) {
  CheckTag(info, kTag);
  const uint16_t peer = NodeNumber(info.Env(), NumberArgument(info, 0));
  const Bytes body = BytesArgument(info, 1);
  const size_t length = channel_->Seal(peer, body.data, body.length, scratch_.data());
  if (length == 0) return info.Env().Null();
  return Napi::Buffer<uint8_t>::Copy(info.Env(), scratch_.data(), length);
}

// open(frame, interface): {peer, incarnation, body}, null when it was refused; {peer, isAuthentic} of a copy of a frame
// that another interface brought.
Napi::Value ChannelObject::Open(const Napi::CallbackInfo& info) {
  CheckTag(info, kTag);
  const Napi::Env env = info.Env();
  const Bytes frame = BytesArgument(info, 0);
  if (frame.length > scratch_.size()) scratch_.resize(frame.length);
  const double interface = info.Length() > 1 ? NumberArgument(info, 1) : 0;
  if (interface != 0 && interface != 1) throw CodeError(env, "ERR_INVALID_ARG_VALUE", "interface must be 0 or 1");
  OpenedFrame opened;
  const FrameResult kind =
      channel_->Open(frame.data, frame.length, static_cast<size_t>(interface), scratch_.data(), &opened);
  if (kind == FrameResult::kRefused) return env.Null();
  Napi::Object result = Napi::Object::New(env);
  result.Set("peer", Napi::Number::New(env, opened.from));
  if (kind == FrameResult::kCopy) {
    result.Set("isAuthentic", Napi::Boolean::New(env, channel_->Verify(frame.data, scratch_.data())));
    return result;
  }
  result.Set("incarnation", Napi::Number::New(env, static_cast<double>(opened.incarnation)));
  result.Set("body", Napi::Buffer<uint8_t>::Copy(env, scratch_.data(), opened.body_length));
  return result;
}

Napi::Value ChannelObject::ReadCounters(const Napi::CallbackInfo& info) {
  CheckTag(info, kTag);
  return CountersObject(info.Env(), counters_);
}

}  // namespace smbpool
