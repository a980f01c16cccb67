/* What a hostile script may try, each try by its name: what the kernel says comes on a line of its own.
   "WENT" means that it went; every other answer is the name of an error. Calls go by number, as a C library may refuse
   what the kernel takes. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *name_of(int number) {
    const char *name = strerrorname_np(number);
    return name ? name : "?";
}

static void say(const char *attack, long result) {
    printf("%s: %s\n", attack, result < 0 ? name_of(errno) : "WENT");
    fflush(stdout);
}

static long write_to(const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    if (fd < 0) return -1;
    long result = write(fd, text, strlen(text));
    close(fd);
    return result;
}

static long read_from(const char *path) {
    char byte;
    int fd = open(path, O_RDONLY);
    if (fd < 0) return -1;
    long result = read(fd, &byte, 1);
    close(fd);
    return result < 0 ? -1 : 0;
}

static long open_socket(int family, int type) { return socket(family, type, 0); }

static long connect_abstract(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path + 1, name, strlen(name));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return connect(fd, (struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
}

static long connect_port(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address);
}

static long escape(const char *marker) {
    int top = open("/", O_RDONLY);
    mkdir("/escape", 0755);
    if (chroot("/escape") || fchdir(top)) return -1;
    for (int i = 0; i < 64; i++) if (chdir("..")) return -1;
    if (chroot(".")) return -1;
    return read_from(marker);
}

static void processes(void) {
    int count = 0, last = 0;
    setpgid(0, 0);
    while (count < 400) {
        pid_t child = fork();
        if (child == 0) for (;;) pause();
        if (child < 0) { last = errno; break; }
        count++;
    }
    printf("processes: %s %d\n", last ? name_of(last) : "WENT", count);
    fflush(stdout);
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM);
    while (wait(NULL) > 0);
}

/* The same by processes of other users, of which each has its own count. */
static void users(void) {
    int count = 0, refused = 0;
    setpgid(0, 0);
    for (int user = 1000; user < 1010; user++) {
        for (int i = 0; i < 40; i++) {
            int ends[2];
            char byte;
            if (pipe(ends)) break;
            pid_t child = fork();
            if (child == 0) {
                close(ends[0]);
                if (setresuid(user, user, user)) _exit(1);
                close(ends[1]);
                pause();
                _exit(0);
            }
            close(ends[1]);
            if (child < 0) refused = errno; else count++;
            read(ends[0], &byte, 1);
            close(ends[0]);
            if (child < 0) break;
        }
    }
    printf("users: %s %d\n", refused ? name_of(refused) : "WENT", count);
    fflush(stdout);
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM);
    while (wait(NULL) > 0);
}

static int hold_key(char **arguments) {
    syscall(SYS_keyctl, 1, NULL);
    if (syscall(SYS_add_key, "user", "cosremaster-secret", "payload", 7, -3) < 0) return 1;
    execvp(arguments[0], arguments);
    return 1;
}

int main(int count, char **arguments) {
    if (count > 2 && !strcmp(arguments[1], "hold-key")) return hold_key(arguments + 2);
    const char *marker = count > 1 ? arguments[1] : "/nowhere";
    const char *abstract = count > 2 ? arguments[2] : "none";
    int port = count > 3 ? atoi(arguments[3]) : 1;
    int outside = count > 4 ? atoi(arguments[4]) : 2;
    if (count > 5 && !strcmp(arguments[5], "processes")) { processes(); return 0; }
    if (count > 5 && !strcmp(arguments[5], "users")) { users(); return 0; }
    if (count > 5 && !strcmp(arguments[5], "kill-all")) { kill(-1, SIGKILL); return 0; }

    signal(SIGXFSZ, SIG_IGN);
    char buffer[65536] = {0};
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    struct timeval time = {.tv_sec = 1};
    struct iovec ours = {buffer, 8}, theirs = {(void *)0x400000, 8};

    say("core_pattern", write_to("/proc/sys/kernel/core_pattern", "|/bin/false"));
    say("modprobe", write_to("/proc/sys/kernel/modprobe", "/bin/false"));
    say("drop_caches", write_to("/proc/sys/vm/drop_caches", "1"));
    say("sysrq", write_to("/proc/sysrq-trigger", "s"));
    say("uevent_helper", write_to("/sys/kernel/uevent_helper", "/bin/false"));
    say("proc remounted", mount("none", "/proc", NULL, MS_REMOUNT, NULL) < 0 ? -1 : 0);
    mkdir("/fresh", 0755);
    say("fresh proc", mount("proc", "/fresh", "proc", 0, NULL) < 0 ? -1 : 0);
    say("core_pattern of a fresh proc", write_to("/fresh/sys/kernel/core_pattern", "|/bin/false"));
    umount2("/proc", MNT_DETACH);
    say("core_pattern below", write_to("/proc/sys/kernel/core_pattern", "|/bin/false"));
    mount("proc", "/proc", "proc", 0, NULL);
    say("kmsg", write_to("/dev/kmsg", "hello"));
    say("syslog", syscall(SYS_syslog, 3, buffer, sizeof buffer));
    say("block device", mknod("/disk", S_IFBLK | 0600, 0xfe00) < 0 ? -1 : read_from("/disk"));
    say("memory device", mknod("/mem", S_IFCHR | 0600, 0x101) < 0 ? -1 : read_from("/mem"));
    say("devtmpfs", mount("dev", "/fresh", "devtmpfs", 0, NULL));
    say("ext4", mount("/disk", "/fresh", "ext4", 0, NULL));
    say("kexec", syscall(SYS_kexec_load, 0, 0, NULL, 0));
    say("kexec_file", syscall(SYS_kexec_file_load, -1, -1, 0, NULL, 0));
    say("init_module", syscall(SYS_init_module, buffer, 4, ""));
    say("finit_module", syscall(SYS_finit_module, 0, "", 0));
    say("delete_module", syscall(SYS_delete_module, "loop", 0));
    say("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0x89abcdef, NULL));
    say("swapon", syscall(SYS_swapon, "/bin/busybox", 0));
    say("settimeofday", settimeofday(&time, NULL));
    say("acct", syscall(SYS_acct, "/etc/passwd"));
    errno = 0;
    say("nice", setpriority(PRIO_PROCESS, 0, -20));
    say("limits", setrlimit(RLIMIT_NPROC, &limit));
    say("size limit", setrlimit(RLIMIT_FSIZE, &limit));
    say("big file", ftruncate(open("/big", O_CREAT | O_WRONLY, 0644), 1L << 50));
    say("kill outside", kill(outside, 0));
    say("home", read_from(marker));
    pid_t child = fork();
    if (child == 0) { say("escape", escape(marker)); _exit(0); }
    waitpid(child, NULL, 0);
    say("init memory", read_from("/proc/1/mem"));
    say("init environment", read_from("/proc/1/environ"));
    say("init maps", read_from("/proc/1/maps"));
    say("init root", chdir("/proc/1/root"));
    say("init directory", chdir("/proc/1/cwd"));
    say("init descriptors", open("/proc/1/fd", O_RDONLY) < 0 ? -1 : readlink("/proc/1/fd/0", buffer, 100));
    say("init program", readlink("/proc/1/exe", buffer, 100));
    say("init namespace", readlink("/proc/1/ns/mnt", buffer, 100));
    say("init traced", ptrace(PTRACE_ATTACH, 1, NULL, NULL));
    say("init seized", ptrace(PTRACE_SEIZE, 1, NULL, NULL));
    say("init read", process_vm_readv(1, &ours, 1, &theirs, 1, 0));
    say("init descriptor taken", syscall(438, syscall(434, 1, 0), 0, 0)); /* pidfd_getfd(pidfd_open(1)) */
    say("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    say("request_key", syscall(SYS_request_key, "user", "cosremaster-secret", NULL, 0));
    say("add_key", syscall(SYS_add_key, "user", "x", "y", 1, -3));
    say("io_uring", syscall(425, 8, buffer));
    say("bpf", syscall(SYS_bpf, 0, buffer, 64));
    say("perf", syscall(SYS_perf_event_open, buffer, 0, -1, -1, 0));
    say("userfaultfd", syscall(SYS_userfaultfd, 1));
    say("clone3", syscall(435, buffer, 88));
    say("unshare user", syscall(SYS_unshare, CLONE_NEWUSER));
    say("clone user", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL));
    say("handle", syscall(SYS_open_by_handle_at, AT_FDCWD, buffer, 0));
    say("vsock", open_socket(40, SOCK_STREAM));
    say("crypto socket", open_socket(38, SOCK_SEQPACKET));
    say("packet socket", open_socket(17, SOCK_RAW));
    say("bluetooth socket", open_socket(31, SOCK_RAW));
    say("abstract socket", connect_abstract(abstract));
    say("local port", connect_port(port));
    say("terminal", open("/dev/tty", O_RDWR));
    say("terminal input", ioctl(2, 0x5412, "x"));
    say("console input", ioctl(2, 0x541C, "\3"));
    say("kill init", kill(1, SIGKILL));
    say("stop init", kill(1, SIGSTOP));
    return 0;
}
