// The instruction sets that a kernel is compiled for, and the choice of the one that runs.
//
// Every kernel file is compiled once per instruction set, with FASTVAE_ISA naming the namespace its code lives in.
// Only the portable compile defines FASTVAE_REGISTER and sees torch's headers. Code in the other compiles must not
// emit a symbol that another object may share (an inline function of the standard library, say): the linker keeps one
// copy, and a copy full of AVX-512 would crash a machine without it. So kernels include <cstdint> and each other only.
#pragma once

#include <cstdint>

#define FASTVAE_INLINE [[gnu::always_inline]] static inline

namespace fastvae {

enum class Isa { portable, avx2, avx512 };

// The instruction set chosen at load: the best of the machine, or what FASTVAE_CPU_CAPABILITY asks for.
// Throws std::runtime_error if that variable asks for one that the machine lacks.
Isa isa();

// True if the machine has AVX-512 BF16, an extension of AVX-512, and FASTVAE_CPU_CAPABILITY allows it.
bool multiplies_bf16();

}  // namespace fastvae

// Declare a kernel in every namespace; FASTVAE_CHOSEN is the one for an instruction set, FASTVAE_RUN calls it.
#ifdef FASTVAE_X86
#define FASTVAE_KERNEL(result, name, ...)                 \
  namespace fastvae::portable { result name(__VA_ARGS__); } \
  namespace fastvae::avx2 { result name(__VA_ARGS__); }     \
  namespace fastvae::avx512 { result name(__VA_ARGS__); }
#define FASTVAE_CHOSEN(isa, name)                                \
  ((isa) == ::fastvae::Isa::avx512 ? ::fastvae::avx512::name     \
   : (isa) == ::fastvae::Isa::avx2 ? ::fastvae::avx2::name       \
                                   : ::fastvae::portable::name)
#else
#define FASTVAE_KERNEL(result, name, ...) \
  namespace fastvae::portable { result name(__VA_ARGS__); }
#define FASTVAE_CHOSEN(isa, name) ((void)(isa), ::fastvae::portable::name)
#endif
#define FASTVAE_RUN(isa, name, ...) FASTVAE_CHOSEN(isa, name)(__VA_ARGS__)
