/* A program of i386 without a C library: what it gives to owners it sees again, and which sockets it gets.
   Its end is 0, or the number of the first step that went otherwise. */
static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return result;
}

static unsigned char facts[128];

static unsigned word(int offset) { return *(unsigned *)(facts + offset); }
static unsigned half(int offset) { return *(unsigned short *)(facts + offset); }

static int steps(void) {
    long arguments[3] = {0, 1, 0};
    if (call(8, (long)"f", 0644, 0) < 0) return 1;                             /* creat */
    if (call(212, (long)"f", 70000, 44)) return 2;                             /* chown32 */
    if (call(195, (long)"f", (long)facts, 0)) return 3;                        /* stat64 */
    if (word(24) != 70000 || word(28) != 44 || word(16) != 0100644) return 4;
    if (call(106, (long)"f", (long)facts, 0)) return 5;                        /* stat, with ids of 16 bits */
    if (half(12) != 65534 || half(14) != 44) return 6;
    if (call(182, (long)"f", 0xffff, 45)) return 7;                            /* chown, with ids of 16 bits */
    if (call(197, 3, (long)facts, 0)) return 8;                                /* fstat64 */
    if (word(24) != 70000 || word(28) != 45) return 9;
    arguments[0] = 1;
    if (call(102, 1, (long)arguments, 0) != 4) return 10;                      /* socketcall: AF_UNIX */
    arguments[0] = 40;
    if (call(102, 1, (long)arguments, 0) != -97) return 11;                    /* AF_VSOCK */
    if (call(359, 40, 1, 0) != -97) return 12;                                 /* socket */
    if (call(288, 0, -3, 0) != -38) return 13;                                 /* keyctl */
    if (call(14, (long)"d", 020644, 0x103)) return 14;                         /* mknod */
    if (call(196, (long)"d", (long)facts, 0) || word(16) != 020644 || word(32) != 0x103) return 15;
    return 0;
}

void _start(void) {
    call(1, steps(), 0, 0);
    for (;;);
}
