"""What Windows lacks of the modules that Linux has."""

MODULES = frozenset("fcntl grp pwd resource syslog termios tty".split())

NAMES = {
    "os": frozenset(
        "O_CLOEXEC O_DIRECT O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_SYNC WNOHANG chown chroot copy_file_range fchdir "
        "fchmod fchown fdatasync fork forkpty fstatvfs getegid geteuid getgid getgrouplist getgroups getloadavg "
        "getpgid getpgrp getpriority getsid getuid killpg lchown lockf memfd_create mkfifo mknod nice openpty "
        "pathconf pidfd_open pipe2 posix_fadvise posix_fallocate posix_spawn pread preadv pwrite pwritev readv "
        "register_at_fork sched_getaffinity sched_setaffinity sendfile set_blocking setgid setpgid setpriority "
        "setsid setuid splice statvfs sync sysconf tcgetpgrp uname wait wait3 wait4 waitid writev".split()
    ),
    "signal": frozenset(
        "SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGUSR1 "
        "SIGUSR2 SIGWINCH SIGXCPU SIGXFSZ SIG_BLOCK SIG_UNBLOCK alarm pause pthread_kill pthread_sigmask setitimer "
        "sigwait".split()
    ),
    "select": frozenset("POLLERR POLLHUP POLLIN epoll poll".split()),
}
