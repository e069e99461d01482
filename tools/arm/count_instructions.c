/*
 * A plugin of qemu's user mode that counts the instructions the guest executes, between marks that the guest sets.
 *
 * The guest marks by umask(0100000 | label): the kernel uses the low nine bits only, and no program passes more, so
 * the call means nothing to anybody else. Each mark becomes one line of the file given as out=PATH:
 *     LABEL INSTRUCTIONS_SINCE_THE_START
 *
 * Blocks are counted as qemu translates them, when they start; that is exact, but for a block that a signal leaves
 * early. Each thread has its own counter, so threads do not lose counts to each other.
 *
 * The functions are declared here because Debian 12 ships qemu without its plugin header. They are those of qemu's
 * include/qemu/qemu-plugin.h (documentation: docs/devel/tcg-plugins.rst), unchanged from version 1 of that interface
 * (qemu 4.2) to version 4 (qemu 9.2). PLUGIN_VERSION is set by whoever compiles this.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define THREADS 256
#define UMASK 166 /* system call number on aarch64 */
#define MARK 0100000u
#define LABELS 0777u
#define NO_REGISTERS 0 /* QEMU_PLUGIN_CB_NO_REGS */

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_syscall_cb(
    qemu_plugin_id_t, void (*)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                               uint64_t, uint64_t, uint64_t));

EXPORT int qemu_plugin_version = PLUGIN_VERSION;

/* One cache line each: threads that count at the same time do not wait for each other. */
static struct { uint64_t count; uint64_t padding[7]; } counters[THREADS];
static FILE *out;

static void executed(unsigned thread, void *instructions)
{
    counters[thread % THREADS].count += (uintptr_t)instructions;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(block, executed, NO_REGISTERS, (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void called(qemu_plugin_id_t id, unsigned thread, int64_t number, uint64_t mask, uint64_t a2, uint64_t a3,
                   uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)thread, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != UMASK || (mask & ~(uint64_t)LABELS) != MARK)
        return;
    uint64_t total = 0;
    for (int i = 0; i < THREADS; i++)
        total += counters[i].count;
    fprintf(out, "%u %" PRIu64 "\n", (unsigned)(mask & LABELS), total);
    fflush(out);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0 || !(out = fopen(argv[0] + 4, "w"))) {
        fprintf(stderr, "count_instructions: needs out=PATH, a file that it can write\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
