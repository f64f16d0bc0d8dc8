#include "isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace fastvae {
namespace {

struct Capability {
  Isa isa = Isa::portable;
  std::string text;  // the name of isa, or why there is none
  bool failed = false;
};

bool machine_has(Isa isa) {
#ifdef FASTVAE_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == Isa::avx512) {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
  return isa == Isa::portable || avx2;
#else
  return isa == Isa::portable;
#endif
}

const char* name_of(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "default"; }

Capability choose() {
  const char* asked = std::getenv("FASTVAE_CPU_CAPABILITY");
  const bool free_choice = asked == nullptr || *asked == '\0';
  for (const Isa isa : {Isa::avx512, Isa::avx2, Isa::portable}) {
    if (free_choice ? machine_has(isa) : std::string(asked) == name_of(isa)) {
      if (machine_has(isa)) return {isa, name_of(isa)};
      return {isa, "FASTVAE_CPU_CAPABILITY=" + std::string(asked) + ", but this CPU lacks it: unset it", true};
    }
  }
  return {Isa::portable,
          "FASTVAE_CPU_CAPABILITY must be avx512, avx2 or default, not '" + std::string(asked) + "'", true};
}

// A static initialiser must not throw (dlopen would end the process), so a bad choice waits for the first operator.
const Capability capability = choose();

}  // namespace

Isa isa() {
  if (capability.failed) throw std::runtime_error(capability.text);
  return capability.isa;
}

bool multiplies_bf16() {
#ifdef FASTVAE_X86
  static const bool has = (__builtin_cpu_init(), __builtin_cpu_supports("avx512bf16"));
  return has && isa() == Isa::avx512;
#else
  return false;
#endif
}

}  // namespace fastvae

// For `fastvae doctor`, by ctypes: "avx512", "avx2", "default", or the error that the first operator would raise.
extern "C" __attribute__((visibility("default"))) const char* fastvae_cpu_capability() {
  return fastvae::capability.text.c_str();
}

// For fastvae.ops: true if `mm` multiplies bf16 matrices on this machine.
extern "C" __attribute__((visibility("default"))) bool fastvae_multiplies_bf16() {
  return !fastvae::capability.failed && fastvae::multiplies_bf16();
}

// For fastvae.ops: true on a processor of AMD, where MKL leaves AVX-512 unused.
extern "C" __attribute__((visibility("default"))) bool fastvae_is_amd() {
#ifdef FASTVAE_X86
  __builtin_cpu_init();
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}
