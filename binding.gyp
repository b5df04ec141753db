{
  'targets': [
    {
      'target_name': 'smbpool',
      'sources': [
        'native/core/addresses.cc',
        'native/core/batch.cc',
        'native/core/ethernet_socket.cc',
        'native/core/frame_channel.cc',
        'native/core/frame_sealer.cc',
        'native/core/gate.cc',
        'native/core/interconnect.cc',
        'native/core/kept_streams.cc',
        'native/core/pump.cc',
        'native/core/realtime.cc',
        'native/core/ring_port.cc',
        'native/core/ring_page.cc',
        'native/core/ring_server.cc',
        'native/core/standby_link.cc',
        'native/core/tdb_file.cc',
        'native/core/udp_socket.cc',
        'native/napi/address_calls.cc',
        'native/napi/addon.cc',
        'native/napi/chain_access.cc',
        'native/napi/channel_object.cc',
        'native/napi/errors.cc',
        'native/napi/pump_object.cc',
        'native/napi/standby_object.cc',
        'native/napi/tdb_object.cc',
      ],
      'dependencies': ['<!(node -p "require(\'node-addon-api\').targets"):node_addon_api_except'],
      # the second: a worker that is in a call of ours when the process exits throws nothing at an environment that is
      # ending; without it that is an abort instead of the exit status
      'defines': ['NAPI_VERSION=8', 'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS'],
      'libraries': ['-ltdb'],
      # -isystem: the warnings are for our code, not for the headers of Node.js and node-addon-api
      'cflags_cc': [
        '-std=c++17', '-Wall', '-Wextra', '-Wconversion', '-Werror', '-fvisibility=hidden',
        '-isystem <(node_root_dir)/include/node',
        '-isystem <!(node -p "require(\'node-addon-api\').include_dir")',
      ],
      'cflags_cc!': ['-fno-exceptions', '-Wno-unused-parameter', '-std=gnu++17', '-std=gnu++20', '-w'],
      'cflags!': ['-w'],
    },
  ],
}
