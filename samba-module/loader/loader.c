/*
 * The file smbd loads as "smbpool": checks that this smbd is the release the module was built for, then loads the
 * module itself, which lies beside it and needs symbols of exactly that release. Without this step a Samba update
 * would end in the dynamic linker's message about symbol versions. Must need nothing but libc.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

/* NTSTATUS as smbd's ABI has it: a struct of one u32. */
typedef struct {
  uint32_t value;
} loader_status;

#define STATUS_UNSUCCESSFUL 0xC0000001u

__attribute__((visibility("default"))) loader_status samba_init_module(void *context);

/* To smbd's own log when it can be found, and to syslog. */
static void complain(const char *text) {
  bool (*print)(const char *, ...) = NULL;

  *(void **)(&print) = dlsym(RTLD_DEFAULT, "dbgtext");
  if (print != NULL) print("%s\n", text);
  syslog(LOG_DAEMON | LOG_ERR, "%s", text);
}

loader_status samba_init_module(void *context) {
  const loader_status failed = {STATUS_UNSUCCESSFUL};
  const char *(*running)(void) = NULL;
  loader_status (*init)(void *) = NULL;
  char path[PATH_MAX], directory[PATH_MAX], text[2 * PATH_MAX];
  Dl_info self;
  void *module;

  *(void **)(&running) = dlsym(RTLD_DEFAULT, "samba_version_string");
  if (running == NULL || strcmp(running(), SMBPOOL_SAMBA_VERSION) != 0) {
    snprintf(text, sizeof(text),
             "smbpool: this module was built for Samba %s but this is Samba %s: run scripts/build-module.sh --install "
             "of smbpool again, then restart smbd", SMBPOOL_SAMBA_VERSION, running == NULL ? "(unknown)" : running());
    complain(text);
    return failed;
  }
  if (dladdr((void *)(uintptr_t)&samba_init_module, &self) == 0) return failed;
  if (strlen(self.dli_fname) >= sizeof(path)) return failed;
  strcpy(path, self.dli_fname);
  snprintf(directory, sizeof(directory), "%s", dirname(path));
  snprintf(path, sizeof(path), "%.3000s/%s", directory, SMBPOOL_MODULE_FILE);
  module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (module != NULL) *(void **)(&init) = dlsym(module, "smbpool_module_init");
  if (init == NULL) {
    snprintf(text, sizeof(text), "smbpool: cannot load %s: %s: run scripts/build-module.sh --install of smbpool again",
             path, dlerror());
    complain(text);
    return failed;
  }
  return init(context);
}
