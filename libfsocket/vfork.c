// SPDX-License-Identifier: GPL-2.0-only
/*
 * vfork(): parent and child run on one stack, the child first, so a wrapper in C can't return: the
 * child's later calls would overwrite the frame the parent comes back to. Turning it into fork()
 * would break programs whose child reports to its parent through the shared memory.
 *
 *	1. note that a child is about to share our memory and not our descriptors (process.c)
 *	2. with the stack as the caller left it, jump to the C library's vfork: it returns, twice,
 *	   straight to our caller
 */
#include "fsocket.h"

__attribute__((visibility("hidden"), used)) void *fsocket_before_vfork(void);

void *fsocket_before_vfork(void)
{
	fsocket_lend();
	return (void *)libc()->vfork;
}

__asm__(".text\n"
	".globl vfork\n"
	".type vfork, @function\n"
	"vfork:\n"
	".cfi_startproc\n"
	/* The ABI wants the stack aligned at a call. */
	"	subq $8, %rsp\n"
	".cfi_adjust_cfa_offset 8\n"
	"	call fsocket_before_vfork\n"
	"	addq $8, %rsp\n"
	".cfi_adjust_cfa_offset -8\n"
	"	jmp *%rax\n"
	".cfi_endproc\n"
	".size vfork, . - vfork\n");
