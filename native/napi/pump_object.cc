// See pump_object.h.
#include "pump_object.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include <unistd.h>

#include "../core/realtime.h"
#include "../core/standby_link.h"
#include "channel_object.h"
#include "errors.h"

namespace smbpool {

namespace {

constexpr napi_type_tag kTag = {0x534d42504f4f4c00, 0x70756d7000000001};
// How long batches follow each other before the loop gets to its timers and other sockets.
constexpr double kTurnMicrosMax = 1500;
constexpr size_t kControlValues = 3;
constexpr size_t kBufferBytesMin = 65536;
constexpr size_t kBufferBytesLimit = size_t{64} << 20;

UdpEndpoint ReadEndpoint(const Napi::Object& object) {
  UdpEndpoint endpoint;
  endpoint.id = static_cast<uint16_t>(NumberMember(object, "id", 0));
  endpoint.address = StringMember(object, "address");
  endpoint.port = static_cast<uint16_t>(NumberMember(object, "port"));
  return endpoint;
}

Napi::Array ArrayMember(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (value.IsArray()) return value.As<Napi::Array>();
  throw CodeError(object.Env(), "ERR_INVALID_ARG_TYPE", std::string(name) + " must be an array");
}

// {interface, peers}
EthernetOptions ReadEthernet(const Napi::Object& object) {
  EthernetOptions options;
  options.interface = StringMember(object, "interface");
  if (options.interface.empty()) {
    throw CodeError(object.Env(), "ERR_INVALID_ARG_VALUE", "interface must not be empty");
  }
  const Napi::Array peers = ArrayMember(object, "peers");
  for (uint32_t i = 0; i < peers.Length(); i++) {
    const Napi::Value peer = peers.Get(i);
    if (!peer.IsNumber()) throw CodeError(object.Env(), "ERR_INVALID_ARG_TYPE", "peers must hold numbers");
    options.peers.push_back(static_cast<uint16_t>(std::clamp(peer.As<Napi::Number>().DoubleValue(), 0.0, 65535.0)));
  }
  return options;
}

// {address, port, peers}
UdpOptions ReadUdp(const Napi::Object& object, double datagram_bytes_max) {
  UdpOptions options;
  options.own = ReadEndpoint(object);
  options.datagram_bytes_max = static_cast<size_t>(datagram_bytes_max);
  const Napi::Array peers = ArrayMember(object, "peers");
  for (uint32_t i = 0; i < peers.Length(); i++) {
    const Napi::Value peer = peers.Get(i);
    if (!peer.IsObject()) throw CodeError(object.Env(), "ERR_INVALID_ARG_TYPE", "peers must hold objects");
    options.peers.push_back(ReadEndpoint(peer.As<Napi::Object>()));
  }
  return options;
}

// {kind: 'ethernet', ways: [{interface, peers}...]} or
// {kind: 'udp', datagramBytesMax, ways: [{address, port, peers}...]}
void ReadTransport(const Napi::Object& transport, InterconnectOptions* options) {
  const Napi::Env env = transport.Env();
  const std::string kind = StringMember(transport, "kind");
  if (kind != "ethernet" && kind != "udp") {
    throw CodeError(env, "ERR_INVALID_ARG_VALUE", "transport must be ethernet or udp");
  }
  const Napi::Array ways = ArrayMember(transport, "ways");
  for (uint32_t i = 0; i < ways.Length(); i++) {
    const Napi::Value way = ways.Get(i);
    if (!way.IsObject()) throw CodeError(env, "ERR_INVALID_ARG_TYPE", "ways must hold objects");
    if (kind == "ethernet") options->ethernet.push_back(ReadEthernet(way.As<Napi::Object>()));
    else options->udp.push_back(ReadUdp(way.As<Napi::Object>(), NumberMember(transport, "datagramBytesMax")));
  }
  if (ways.Length() == 0 || ways.Length() > kInterfacesMax) {
    throw CodeError(env, "ERR_INVALID_ARG_VALUE", "there must be one way or two");
  }
}

// As it is named in messages.
std::string InterfaceNames(const InterconnectOptions& options) {
  std::string names;
  const auto add = [&names](const std::string& name) { names += (names.empty() ? "" : ", ") + name; };
  for (const EthernetOptions& one : options.ethernet) add(one.interface);
  for (const UdpOptions& one : options.udp) add(one.own.address);
  return names;
}

// {streams, listener, connections: [{id, slot, fd}...]}; takes the descriptors.
void ReadHeirloom(const Napi::Object& object, GateHeirloom* heirloom) {
  heirloom->streams = UniqueFd(static_cast<int>(NumberMember(object, "streams")));
  heirloom->listener = UniqueFd(static_cast<int>(NumberMember(object, "listener")));
  const Napi::Array connections = ArrayMember(object, "connections");
  for (uint32_t i = 0; i < connections.Length(); i++) {
    const Napi::Value one = connections.Get(i);
    if (!one.IsObject()) throw CodeError(object.Env(), "ERR_INVALID_ARG_TYPE", "connections must hold objects");
    const auto connection = one.As<Napi::Object>();
    heirloom->connections.push_back({static_cast<uint32_t>(NumberMember(connection, "id")),
                                     static_cast<int>(NumberMember(connection, "slot")),
                                     UniqueFd(static_cast<int>(NumberMember(connection, "fd")))});
  }
}

void ReadGate(const Napi::Object& gate, GateOptions* options) {
  options->path = StringMember(gate, "path");
  const auto limit = [&gate](const char* name, size_t otherwise) {
    return static_cast<size_t>(NumberMember(gate, name, static_cast<double>(otherwise)));
  };
  options->clients_max = limit("clientsMax", options->clients_max);
  options->packet_bytes_max = limit("packetBytesMax", options->packet_bytes_max);
  options->input_bytes_max = limit("inputBytesMax", options->input_bytes_max);
  options->output_bytes_max = limit("outputBytesMax", options->output_bytes_max);
  options->patient_control = static_cast<uint32_t>(NumberMember(gate, "patientControl", 0));
  const Napi::Value heirloom = gate.Get("heirloom");
  if (heirloom.IsObject()) ReadHeirloom(heirloom.As<Napi::Object>(), &options->heirloom);
}

// {path, pagePath, generation, node}: pagePath '' keeps the node page in memory
void ReadRing(const Napi::Object& ring, RingServerOptions* options) {
  options->socket_path = StringMember(ring, "path");
  options->page_path = StringMember(ring, "pagePath");
  options->generation = static_cast<uint32_t>(NumberMember(ring, "generation"));
  options->node = static_cast<uint32_t>(NumberMember(ring, "node"));
  options->adopts_page = ring.Get("adoptsPage").ToBoolean();
  options->allowed_uid = ::geteuid();
  if (options->socket_path.empty()) throw CodeError(ring.Env(), "ERR_INVALID_ARG_VALUE", "path must not be empty");
}

}  // namespace

Napi::Function PumpObject::Define(Napi::Env env) {
  return DefineClass(env, "Pump",
                     {
                         InstanceMethod<&PumpObject::RouteOut>("route"),
                         InstanceMethod<&PumpObject::Flush>("flush"),
                         InstanceMethod<&PumpObject::SendPacket>("sendPacket"),
                         InstanceMethod<&PumpObject::TakeLarge>("takeLarge"),
                         InstanceMethod<&PumpObject::ReadCounters>("counters"),
                         InstanceMethod<&PumpObject::PeerStatus>("peer"),
                         InstanceMethod<&PumpObject::SetPeer>("setPeer"),
                         InstanceMethod<&PumpObject::SetServing>("setServing"),
                         InstanceMethod<&PumpObject::Beat>("beat"),
                         InstanceMethod<&PumpObject::RecordError>("recordError"),
                         InstanceMethod<&PumpObject::SetLease>("setLease"),
                         InstanceMethod<&PumpObject::SetDraining>("setDraining"),
                         InstanceMethod<&PumpObject::SetSharesFolders>("setSharesFolders"),
                         InstanceMethod<&PumpObject::RingCounters>("ringCounters"),
                         InstanceMethod<&PumpObject::Describe>("describe"),
                         InstanceMethod<&PumpObject::Kept>("kept"),
                         InstanceMethod<&PumpObject::KeepState>("keepState"),
                         InstanceMethod<&PumpObject::KeepGlobal>("keepGlobal"),
                         InstanceMethod<&PumpObject::KeepErasure>("keepErasure"),
                         InstanceMethod<&PumpObject::Resume>("resume"),
                         InstanceMethod<&PumpObject::Heirloom>("heirloom"),
                         InstanceMethod<&PumpObject::SetStandby>("setStandby"),
                         InstanceMethod<&PumpObject::TellStandby>("tellStandby"),
                         InstanceMethod<&PumpObject::Abandon>("abandon"),
                         InstanceMethod<&PumpObject::Close>("close"),
                     });
}

// new Pump({inBytes, outBytes, channel?, transport?, gate?, ring?, onBatch})
PumpObject::PumpObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<PumpObject>(info) {
  const Napi::Env env = info.Env();
  info.This().As<Napi::Object>().TypeTag(&kTag);
  if (!info[0].IsObject()) throw CodeError(env, "ERR_INVALID_ARG_TYPE", "argument 1 must be an object");
  const auto options = info[0].As<Napi::Object>();
  const Napi::Value on_batch = options.Get("onBatch");
  if (!on_batch.IsFunction()) throw CodeError(env, "ERR_INVALID_ARG_TYPE", "onBatch must be a function");
  MakeBuffers(options);
  OpenPump(options);
  on_batch_ = Napi::Persistent(on_batch.As<Napi::Function>());
  context_ = std::make_unique<Napi::AsyncContext>(env, "smbpool:pump");
  Start();
}

PumpObject::~PumpObject() {
  if (handle_ != nullptr) {
    handle_->owner = nullptr;
    LoopHandle<PumpObject>::Close(handle_);
  }
}

void PumpObject::MakeBuffers(const Napi::Object& options) {
  const Napi::Env env = options.Env();
  const auto bytes = [&options](const char* name) {
    return std::clamp(static_cast<size_t>(NumberMember(options, name)), kBufferBytesMin, kBufferBytesLimit);
  };
  Napi::ArrayBuffer in = Napi::ArrayBuffer::New(env, bytes("inBytes"));
  Napi::ArrayBuffer out = Napi::ArrayBuffer::New(env, bytes("outBytes"));
  Napi::ArrayBuffer control = Napi::ArrayBuffer::New(env, kControlValues * sizeof(double));
  in_bytes_ = static_cast<uint8_t*>(in.Data());
  in_capacity_ = in.ByteLength();
  out_bytes_ = static_cast<uint8_t*>(out.Data());
  out_capacity_ = out.ByteLength();
  control_values_ = static_cast<double*>(control.Data());
  control_values_[1] = std::numeric_limits<double>::infinity();
  control_values_[2] = 0;
  in_ = Napi::Persistent(in);
  out_ = Napi::Persistent(out);
  control_ = Napi::Persistent(control);
  Napi::Object self = Value();
  self.Set("inBuffer", in);
  self.Set("outBuffer", out);
  self.Set("controlBuffer", control);
}

void PumpObject::OpenPump(const Napi::Object& options) {
  const Napi::Env env = options.Env();
  PumpOptions native;
  std::string detail;
  const Napi::Value transport = options.Get("transport");
  if (transport.IsObject()) {
    ReadTransport(transport.As<Napi::Object>(), &native.interconnect);
    const Napi::Value channel = options.Get("channel");
    if (!channel.IsObject()) throw CodeError(env, "ERR_INVALID_ARG_TYPE", "channel must be an object");
    native.interconnect.channel = ReadChannelOptions(channel.As<Napi::Object>());
    detail = InterfaceNames(native.interconnect);
  }
  const Napi::Value ring = options.Get("ring");
  if (ring.IsObject()) {
    ReadRing(ring.As<Napi::Object>(), &native.ring);
    detail += (detail.empty() ? "" : ", ") + native.ring.socket_path;
  }
  const Napi::Value gate = options.Get("gate");
  if (gate.IsObject()) {
    ReadGate(gate.As<Napi::Object>(), &native.gate);
    detail += (detail.empty() ? "" : ", ") + native.gate.path;
  }
  const Status status = Pump::Open(std::move(native), &pump_);
  if (!status.ok()) throw StatusError(env, status, "(" + detail + ")");
}

void PumpObject::Start() {
  const Napi::Env env = Env();
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) throw CodeError(env, "ERR_POOL_LOOP", "no event loop");
  auto handle = std::make_unique<LoopHandle<PumpObject>>();
  handle->owner = this;
  const int failed = uv_poll_init(loop, &handle->poll, pump_->epoll_fd());
  if (failed != 0) throw CodeError(env, uv_err_name(failed), "cannot watch the pump");
  handle_ = handle.release();
  handle_->poll.data = handle_;
  napi_add_async_cleanup_hook(
      env,
      [](napi_async_cleanup_hook_handle hook, void* argument) {
        auto* closing = static_cast<LoopHandle<PumpObject>*>(argument);
        closing->hook = hook;
        PumpObject* owner = closing->owner;
        if (owner != nullptr) {
          owner->handle_ = nullptr;
          // the process ends without having closed: whoever stands by goes on
          Gate* gate = owner->pump_ == nullptr ? nullptr : owner->pump_->gate();
          if (gate != nullptr && gate->standby().there()) owner->pump_->Abandon();
          owner->pump_.reset();
        }
        closing->owner = nullptr;
        LoopHandle<PumpObject>::Close(closing);
      },
      handle_, &handle_->hook);
  uv_poll_start(&handle_->poll, UV_READABLE, [](uv_poll_t* poll, int, int) {
    auto* readable = static_cast<LoopHandle<PumpObject>*>(poll->data);
    if (readable->owner != nullptr) readable->owner->OnReadable();
  });
  // open: not to be collected, whoever forgets it
  Ref();
}

// Inside a turn the descriptors are still in use: the end of the turn stops.
void PumpObject::Stop() {
  if (handle_ == nullptr) return;
  if (in_turn_) {
    stop_wanted_ = true;
    return;
  }
  handle_->owner = nullptr;
  LoopHandle<PumpObject>::Close(handle_);
  handle_ = nullptr;
  pump_.reset();
  on_batch_.Reset();
  context_.reset();
  Unref();
}

void PumpObject::OnReadable() {
  const Napi::HandleScope scope(Env());
  const double start = Pump::Now();
  double end = start;
  Realtime::Turn(start);
  in_turn_ = true;
  do {
    BatchWriter writer(in_bytes_, in_capacity_, in_waiting_);
    if (!pump_->Collect(&writer)) break;
    in_waiting_ = writer.length();
    if (pump_->CanWait(writer, control_values_[2])) break;
    in_waiting_ = 0;
    control_values_[0] = Pump::Now();
    Route(CallBatch(writer.length()));
    pump_->EndTurn();
    // what a descriptor alone can tell, the loop tells: asking the kernel again would mostly be for nothing
    pump_->Sleep();
    const double took = Pump::Now() - end;
    end += took;
    Realtime::Turn(end);
    RingPort* ring = pump_->ring();
    if (ring != nullptr) ring->server().RecordLatency(SMBPOOL_HISTOGRAM_TURN, static_cast<uint64_t>(took));
  } while (!stop_wanted_ && pump_->More() && end - start < kTurnMicrosMax);
  pump_->Sleep();
  pump_->Kick();
  in_turn_ = false;
  if (stop_wanted_) Stop();
}

size_t PumpObject::CallBatch(size_t in_length) {
  const Napi::Env env = Env();
  const Napi::HandleScope scope(env);
  try {
    const Napi::Value result =
        on_batch_.MakeCallback(Value(), {Napi::Number::New(env, static_cast<double>(in_length))}, *context_);
    if (!result.IsNumber()) return 0;
    const double length = result.As<Napi::Number>().DoubleValue();
    return length > 0 ? std::min(static_cast<size_t>(length), out_capacity_) : 0;
  } catch (const Napi::Error& error) {
    // as for any callback of the loop: uncaughtException
    napi_fatal_exception(env, error.Value());
    return 0;
  }
}

void PumpObject::Route(size_t out_length) {
  pump_->Route(out_bytes_, out_length);
  pump_->Flush();
  pump_->ArmTimer(control_values_[1]);
}

Pump& PumpObject::Checked(const Napi::CallbackInfo& info) {
  CheckTag(info, kTag);
  if (pump_ == nullptr) throw CodeError(info.Env(), "ERR_POOL_CLOSED", "the pump is closed");
  return *pump_;
}

// route(outLength): performs the records of the out buffer now, which may then be filled again. They leave with the
// turn.
Napi::Value PumpObject::RouteOut(const Napi::CallbackInfo& info) {
  Pump& pump = Checked(info);
  const auto length = static_cast<size_t>(std::max(0.0, NumberArgument(info, 0)));
  pump.Route(out_bytes_, std::min(length, out_capacity_));
  return info.Env().Undefined();
}

// flush(outLength): outside a turn: performs, sends, arms the timer.
Napi::Value PumpObject::Flush(const Napi::CallbackInfo& info) {
  Pump& pump = Checked(info);
  const auto length = static_cast<size_t>(std::max(0.0, NumberArgument(info, 0)));
  Route(std::min(length, out_capacity_));
  pump.Kick();
  return info.Env().Undefined();
}

// sendPacket(client, packet): for a packet too large for the out buffer.
Napi::Value PumpObject::SendPacket(const Napi::CallbackInfo& info) {
  Pump& pump = Checked(info);
  const Bytes packet = BytesArgument(info, 1);
  pump.SendPacket(static_cast<uint32_t>(NumberArgument(info, 0)), packet.data, packet.length);
  return info.Env().Undefined();
}

Napi::Value PumpObject::TakeLarge(const Napi::CallbackInfo& info) {
  const std::vector<uint8_t> packet = Checked(info).TakeLarge(static_cast<uint32_t>(NumberArgument(info, 0)));
  return Napi::Buffer<uint8_t>::Copy(info.Env(), packet.data(), packet.size());
}

Napi::Value PumpObject::ReadCounters(const Napi::CallbackInfo& info) {
  return CountersObject(info.Env(), Checked(info).counters());
}

// peer(id): {incarnation, interfaces: [{address, heardAt}...]}
Napi::Value PumpObject::PeerStatus(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Interconnect* interconnect = Checked(info).interconnect();
  const auto peer = static_cast<uint16_t>(NumberArgument(info, 0));
  Napi::Object status = Napi::Object::New(env);
  const uint64_t incarnation = interconnect == nullptr ? 0 : interconnect->PeerIncarnation(peer);
  status.Set("incarnation", static_cast<double>(incarnation));
  Napi::Array interfaces = Napi::Array::New(env);
  for (uint32_t i = 0; interconnect != nullptr && i < interconnect->interfaces(); i++) {
    Napi::Object interface = Napi::Object::New(env);
    interface.Set("address", interconnect->PeerAddress(peer, i));
    interface.Set("heardAt", interconnect->HeardAt(peer, i));
    interfaces.Set(i, interface);
  }
  status.Set("interfaces", interfaces);
  return status;
}

// setPeer(id, interface, address, port): '' where the address means nothing
Napi::Value PumpObject::SetPeer(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Interconnect* interconnect = Checked(info).interconnect();
  const double id = std::clamp(NumberArgument(info, 0), 0.0, 65535.0);
  const double way = std::clamp(NumberArgument(info, 1), 0.0, 65535.0);
  const double port = std::clamp(NumberArgument(info, 3), 0.0, 65535.0);
  if (!info[2].IsString()) throw CodeError(env, "ERR_INVALID_ARG_TYPE", "the address must be a string");
  const std::string address = info[2].As<Napi::String>().Utf8Value();
  if (interconnect == nullptr) return env.Undefined();
  const Status status = interconnect->SetPeer(static_cast<size_t>(way), static_cast<uint16_t>(id), address,
                                              static_cast<uint16_t>(port));
  if (!status.ok()) throw StatusError(env, status, "(" + address + ")");
  return env.Undefined();
}

// setServing(serving): the node page says whether this daemon takes part in its pool.
Napi::Value PumpObject::SetServing(const Napi::CallbackInfo& info) {
  RingPort* ring = Checked(info).ring();
  if (ring != nullptr) ring->server().SetFlag(SMBPOOL_NODE_SERVING, info[0].ToBoolean());
  return info.Env().Undefined();
}

// setDraining(draining): the node page says whether smbds let clients cache writes no more.
Napi::Value PumpObject::SetDraining(const Napi::CallbackInfo& info) {
  RingPort* ring = Checked(info).ring();
  if (ring != nullptr) ring->server().SetFlag(SMBPOOL_NODE_DRAINING, info[0].ToBoolean());
  return info.Env().Undefined();
}

// setSharesFolders(shares): the node page says whether opens that exclude others from a folder have to ask.
Napi::Value PumpObject::SetSharesFolders(const Napi::CallbackInfo& info) {
  RingPort* ring = Checked(info).ring();
  if (ring != nullptr) ring->server().SetFlag(SMBPOOL_NODE_SHARES_FOLDERS, info[0].ToBoolean());
  return info.Env().Undefined();
}

// beat(counters): a Float64Array; into the node page, with the time.
Napi::Value PumpObject::Beat(const Napi::CallbackInfo& info) {
  RingPort* ring = Checked(info).ring();
  if (!info[0].IsTypedArray() || info[0].As<Napi::TypedArray>().TypedArrayType() != napi_float64_array) {
    throw CodeError(info.Env(), "ERR_INVALID_ARG_TYPE", "argument 1 must be a Float64Array");
  }
  const auto counters = info[0].As<Napi::Float64Array>();
  if (ring != nullptr) ring->server().Beat(counters.Data(), counters.ElementLength());
  return info.Env().Undefined();
}

// recordError(code, text, realtimeMicros): into the node page.
Napi::Value PumpObject::RecordError(const Napi::CallbackInfo& info) {
  RingPort* ring = Checked(info).ring();
  const auto code = static_cast<uint32_t>(NumberArgument(info, 0));
  const std::string text = StringArgument(info, 1);
  const double micros = std::max(0.0, NumberArgument(info, 2));
  if (ring != nullptr) ring->server().RecordError(code, text.c_str(), static_cast<uint64_t>(micros));
  return info.Env().Undefined();
}

// setLease(untilMicros): into the node page; until when, by CLOCK_MONOTONIC, this server may serve. 0: for ever.
Napi::Value PumpObject::SetLease(const Napi::CallbackInfo& info) {
  RingPort* ring = Checked(info).ring();
  const double micros = std::max(0.0, NumberArgument(info, 0));
  if (ring != nullptr) ring->server().SetLeaseDeadline(static_cast<uint64_t>(micros));
  return info.Env().Undefined();
}

// ringCounters(): the first numbers of the node page, as in enum smbpool_node_counter; null without a ring.
Napi::Value PumpObject::RingCounters(const Napi::CallbackInfo& info) {
  RingPort* ring = Checked(info).ring();
  if (ring == nullptr) return info.Env().Null();
  const uint64_t* values = ring->server().page()->counters;
  Napi::Array counters = Napi::Array::New(info.Env(), SMBPOOL_NODE_FREE);
  for (uint32_t i = 0; i < SMBPOOL_NODE_FREE; i++) counters.Set(i, static_cast<double>(values[i]));
  return counters;
}

// describe(): {bodyBytesMax, receiveFramesMax, addresses, clients, attachments}
Napi::Value PumpObject::Describe(const Napi::CallbackInfo& info) {
  Pump& pump = Checked(info);
  Napi::Object description = Napi::Object::New(info.Env());
  const Interconnect* interconnect = pump.interconnect();
  const size_t body_bytes_max = interconnect == nullptr ? 0 : interconnect->BodyBytesMax();
  const size_t receive_frames_max = interconnect == nullptr ? 0 : interconnect->ReceiveFramesMax();
  description.Set("bodyBytesMax", static_cast<double>(body_bytes_max));
  description.Set("receiveFramesMax", static_cast<double>(receive_frames_max));
  Napi::Array addresses = Napi::Array::New(info.Env());
  for (uint32_t i = 0; interconnect != nullptr && i < interconnect->interfaces(); i++) {
    addresses.Set(i, interconnect->Address(i));
  }
  description.Set("addresses", addresses);
  description.Set("clients", static_cast<double>(pump.Clients()));
  const size_t attachments = pump.ring() == nullptr ? 0 : pump.ring()->attachments();
  description.Set("attachments", static_cast<double>(attachments));
  return description;
}

// kept(): [{client, pid, state}...] of the connections taken over.
Napi::Value PumpObject::Kept(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Gate* gate = Checked(info).gate();
  Napi::Array all = Napi::Array::New(env);
  if (gate == nullptr) return all;
  uint32_t count = 0;
  for (const KeptDescription& one : gate->Kept()) {
    Napi::Object description = Napi::Object::New(env);
    description.Set("client", one.id);
    description.Set("pid", one.pid);
    description.Set("state", Napi::Buffer<uint8_t>::Copy(env, one.state.data(), one.state.size()));
    all.Set(count++, description);
  }
  return all;
}

// keepState(client, state): for a successor. False: no such client, or too long.
Napi::Value PumpObject::KeepState(const Napi::CallbackInfo& info) {
  Gate* gate = Checked(info).gate();
  const Bytes state = BytesArgument(info, 1);
  const auto id = static_cast<uint32_t>(NumberArgument(info, 0));
  return Napi::Boolean::New(info.Env(), gate != nullptr && gate->KeepState(id, state.data, state.length));
}

// keepGlobal(state): of the daemon as a whole. False: too long.
Napi::Value PumpObject::KeepGlobal(const Napi::CallbackInfo& info) {
  Gate* gate = Checked(info).gate();
  const Bytes state = BytesArgument(info, 0);
  return Napi::Boolean::New(info.Env(), gate != nullptr && gate->streams().SetGlobal(state.data, state.length));
}

// keepErasure(database, key, turn)
Napi::Value PumpObject::KeepErasure(const Napi::CallbackInfo& info) {
  Gate* gate = Checked(info).gate();
  const Bytes key = BytesArgument(info, 1);
  const auto database = static_cast<uint32_t>(NumberArgument(info, 0));
  const auto turn = static_cast<uint64_t>(std::max(0.0, NumberArgument(info, 2)));
  if (gate != nullptr) gate->streams().Log(database, turn, key.data, key.length);
  return info.Env().Undefined();
}

// resume(): outside a batch: the clients taken over are read again, and new ones accepted.
Napi::Value PumpObject::Resume(const Napi::CallbackInfo& info) {
  Gate* gate = Checked(info).gate();
  const Status status = gate == nullptr ? Status{} : gate->Resume();
  if (!status.ok()) throw StatusError(info.Env(), status, "");
  if (pump_ != nullptr) pump_->Kick();
  return info.Env().Undefined();
}

// heirloom(): {streams, listener, state, erasures}: descriptors, which stay the pump's; what keepGlobal was given last;
// what keepErasure was given, as KeptStreams::Logged.
Napi::Value PumpObject::Heirloom(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Gate* gate = Checked(info).gate();
  if (gate == nullptr) return env.Null();
  Napi::Object heirloom = Napi::Object::New(env);
  heirloom.Set("streams", gate->streams().fd());
  heirloom.Set("listener", gate->listener_fd());
  const std::vector<uint8_t> state = gate->streams().Global();
  heirloom.Set("state", Napi::Buffer<uint8_t>::Copy(env, state.data(), state.size()));
  const std::vector<uint8_t> log = gate->streams().Logged();
  heirloom.Set("erasures", Napi::Buffer<uint8_t>::Copy(env, log.data(), log.size()));
  return heirloom;
}

// setStandby(fd): takes the descriptor; -1: there is none any more.
Napi::Value PumpObject::SetStandby(const Napi::CallbackInfo& info) {
  Gate* gate = Checked(info).gate();
  UniqueFd link(static_cast<int>(NumberArgument(info, 0)));
  if (gate != nullptr) gate->SetStandby(std::move(link));
  return info.Env().Undefined();
}

// tellStandby(message)
Napi::Value PumpObject::TellStandby(const Napi::CallbackInfo& info) {
  Gate* gate = Checked(info).gate();
  const Bytes message = BytesArgument(info, 0);
  if (message.length > kStandbySayBytesMax) throw CodeError(info.Env(), "ERR_OUT_OF_RANGE", "message is too long");
  const StandbyHeader header{static_cast<uint32_t>(StandbyKind::kSay), 0, 0, static_cast<uint32_t>(message.length)};
  if (gate != nullptr) gate->standby().Tell(header, message.data, -1);
  return info.Env().Undefined();
}

// abandon(): a successor goes on with everything: the end of this process, or close(), leaves all as it is.
Napi::Value PumpObject::Abandon(const Napi::CallbackInfo& info) {
  Checked(info).Abandon();
  return info.Env().Undefined();
}

Napi::Value PumpObject::Close(const Napi::CallbackInfo& info) {
  CheckTag(info, kTag);
  Stop();
  return info.Env().Undefined();
}

}  // namespace smbpool
