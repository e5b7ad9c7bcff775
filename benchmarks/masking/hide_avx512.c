/* Hides AVX-512, AVX-VNNI and AMX from a program, so that it runs as on AWS Lambda (AVX2).
 *
 *   cc -O2 -shared -fPIC -o hide_avx512.so hide_avx512.c
 *   LD_PRELOAD=$PWD/hide_avx512.so HIDE_AVX512=fault  python ...
 *
 * Libraries choose their kernels by the CPUID instruction. This program answers that instruction
 * in its place and clears the feature bits. HIDE_AVX512 selects how it gets hold of it:
 *
 *   fault    The kernel makes CPUID fault (arch_prctl(2), ARCH_SET_CPUID). Needs an Intel
 *            processor that lists cpuid_fault in /proc/cpuinfo. A new thread inherits the setting.
 *            A new program does not, but it inherits LD_PRELOAD and calls install() again.
 *   patched  The libraries are copies in which UD2 (0F 0B) replaces CPUID (0F A2). For AMD.
 *
 * Bits: Intel Software Developer's Manual, volume 2A, CPUID, leaf 07H. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define BIT(n) (1u << (n))
enum { EAX, EBX, ECX, EDX };
enum { ARCH_SET_CPUID = 0x1012, EXIT_CANNOT_FAULT = 3 };
static enum { OFF, FAULT, PATCHED } mode = OFF;

/* F, DQ, IFMA, PF, ER, CD, BW, VL */
static const uint32_t HIDDEN_EBX =
    BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31);
/* VBMI, VBMI2, GFNI, VNNI, BITALG, VPOPCNTDQ */
static const uint32_t HIDDEN_ECX = BIT(1) | BIT(6) | BIT(8) | BIT(11) | BIT(12) | BIT(14);
/* 4VNNIW, 4FMAPS, VP2INTERSECT, AMX-BF16, FP16, AMX-TILE, AMX-INT8 */
static const uint32_t HIDDEN_EDX =
    BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25);

static int let_cpuid_run(int allowed) {
  return mode == FAULT ? syscall(SYS_arch_prctl, ARCH_SET_CPUID, (long)allowed) : 0;
}

static void run_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]) {
  __asm__ volatile("cpuid"
                   : "=a"(out[EAX]), "=b"(out[EBX]), "=c"(out[ECX]), "=d"(out[EDX])
                   : "a"(leaf), "c"(subleaf));
}

static void hide(uint32_t leaf, uint32_t subleaf, uint32_t out[4]) {
  if (leaf != 7) return;
  if (subleaf > 0) { /* AVX-VNNI, AVX512-BF16, AVX10, further AMX: nothing that AVX2 needs */
    memset(out, 0, 4 * sizeof out[0]);
    return;
  }
  out[EBX] &= ~HIDDEN_EBX;
  out[ECX] &= ~HIDDEN_ECX;
  out[EDX] &= ~HIDDEN_EDX;
}

static void on_signal(int number, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const uint8_t *code = (const uint8_t *)registers[REG_RIP];
  uint32_t leaf = (uint32_t)registers[REG_RAX], subleaf = (uint32_t)registers[REG_RCX], out[4];
  int from_kernel = info->si_code == SI_KERNEL; /* the faulting CPUID; a bad address is not */

  if ((mode == FAULT && !from_kernel) || code[0] != 0x0f ||
      code[1] != (mode == FAULT ? 0xa2 : 0x0b)) {
    signal(number, SIG_DFL); /* a real crash: the same instruction ends the process now */
    return;
  }
  let_cpuid_run(1);
  run_cpuid(leaf, subleaf, out);
  let_cpuid_run(0);
  hide(leaf, subleaf, out);
  registers[REG_RAX] = out[EAX];
  registers[REG_RBX] = out[EBX];
  registers[REG_RCX] = out[ECX];
  registers[REG_RDX] = out[EDX];
  registers[REG_RIP] += 2;
}

/* What a library sees: CPUID, or UD2 as in a patched copy. benchmarks/masking calls it to check. */
void see_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]) {
  if (mode == PATCHED) {
    __asm__ volatile("ud2"
                     : "=a"(out[EAX]), "=b"(out[EBX]), "=c"(out[ECX]), "=d"(out[EDX])
                     : "a"(leaf), "c"(subleaf));
  } else {
    run_cpuid(leaf, subleaf, out);
  }
}

__attribute__((constructor)) static void install(void) {
  static const char failed[] = "hide_avx512: this processor cannot make CPUID fault\n";
  const char *wanted = getenv("HIDE_AVX512");
  struct sigaction action;

  if (!wanted) return;
  mode = !strcmp(wanted, "fault") ? FAULT : !strcmp(wanted, "patched") ? PATCHED : OFF;
  if (mode == OFF) return;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(mode == FAULT ? SIGSEGV : SIGILL, &action, NULL);
  if (let_cpuid_run(0)) { /* never measure as AVX2 what is not */
    if (write(STDERR_FILENO, failed, sizeof failed - 1) < 0) _exit(EXIT_CANNOT_FAULT);
    _exit(EXIT_CANNOT_FAULT);
  }
}
