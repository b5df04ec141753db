// The JavaScript class FrameChannel over native/core/frame_channel, for tests and fuzzing of sealed frames without a
// network; and the reading of channel options shared with Pump.
#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "../core/frame_channel.h"

namespace smbpool {

// {self, members, incarnation, poolName, poolKey}
ChannelOptions ReadChannelOptions(const Napi::Object& options);

class ChannelObject : public Napi::ObjectWrap<ChannelObject> {
 public:
  static Napi::Function Define(Napi::Env env);
  explicit ChannelObject(const Napi::CallbackInfo& info);

 private:
  Napi::Value Seal(const Napi::CallbackInfo& info);
  Napi::Value Open(const Napi::CallbackInfo& info);
  Napi::Value ReadCounters(const Napi::CallbackInfo& info);

  Counters counters_;
  std::unique_ptr<FrameChannel> channel_;
  std::vector<uint8_t> scratch_;
};

}  // namespace smbpool
