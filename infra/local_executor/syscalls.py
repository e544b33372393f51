"""Tables of system calls: which ones a program may make. Each entry is `name:number on x86_64:number on aarch64`.

The list follows the default profile of the container engines (containers/common and moby, `seccomp.json`), without:
- System V and POSIX message queues, semaphores and shared memory, memfd_create and memfd_secret: their memory belongs
  to no process, so no limit counts it.
- io_setup and what belongs to it: all programs of a host share one number of requests.
- clone3, unshare, setns and the calls that mount: a program needs no namespaces and no file systems of its own.
- keyctl, name_to_handle_at, modify_ldt, remap_file_pages, process_mrelease, fanotify_mark: rarely needed and often
  attacked.
Calls of later kernels (from futex_waitv on) are those that moby has added since.
"""

ALLOWED = """
# Files and folders
access:21:- cachestat:451:451 chdir:80:49 chmod:90:- chown:92:- close:3:57 close_range:436:436 copy_file_range:326:285
creat:85:- dup:32:23 dup2:33:- dup3:292:24 faccessat:269:48 faccessat2:439:439 fadvise64:221:223 fallocate:285:47
fchdir:81:50 fchmod:91:52 fchmodat:268:53 fchmodat2:452:452 fchown:93:55 fchownat:260:54 fcntl:72:25 fdatasync:75:83
fgetxattr:193:10 flistxattr:196:13 flock:73:32 fremovexattr:199:16 fsetxattr:190:7 fstat:5:80 fstatfs:138:44
fsync:74:82 ftruncate:77:46 futimesat:261:- getcwd:79:17 getdents:78:- getdents64:217:61 getxattr:191:8
getxattrat:464:464 lchown:94:- lgetxattr:192:9 link:86:- linkat:265:37 listmount:458:458 listxattr:194:11
listxattrat:465:465 llistxattr:195:12 lremovexattr:198:15 lseek:8:62 lsetxattr:189:6 lstat:6:- mkdir:83:-
mkdirat:258:34 mknod:133:- mknodat:259:33 newfstatat:262:79 open:2:- openat:257:56 openat2:437:437 pipe:22:-
pipe2:293:59 pread64:17:67 preadv:295:69 preadv2:327:286 pwrite64:18:68 pwritev:296:70 pwritev2:328:287 read:0:63
readahead:187:213 readlink:89:- readlinkat:267:78 readv:19:65 removexattr:197:14 removexattrat:466:466 rename:82:-
renameat:264:38 renameat2:316:276 rmdir:84:- sendfile:40:71 setxattr:188:5 setxattrat:463:463 splice:275:76 stat:4:-
statfs:137:43 statmount:457:457 statx:332:291 symlink:88:- symlinkat:266:36 sync:162:81 sync_file_range:277:84
syncfs:306:267 tee:276:77 truncate:76:45 umask:95:166 unlink:87:- unlinkat:263:35 utime:132:- utimensat:280:88
utimes:235:- write:1:64 writev:20:66
# Sockets, which lead nowhere but to the sandbox itself; `socket` and `socketpair` are in the filter
accept:43:202 accept4:288:242 bind:49:200 connect:42:203 getpeername:52:205 getsockname:51:204 getsockopt:55:209
listen:50:201 recvfrom:45:207 recvmmsg:299:243 recvmsg:47:212 sendmmsg:307:269 sendmsg:46:211 sendto:44:206
setsockopt:54:208 shutdown:48:210
# Waiting; io_uring is missing, because its calls pass by the filter, and io_setup with what belongs to it
epoll_create:213:- epoll_create1:291:20 epoll_ctl:233:21 epoll_pwait:281:22 epoll_pwait2:441:441 epoll_wait:232:-
eventfd:284:- eventfd2:290:19 inotify_add_watch:254:27 inotify_init:253:- inotify_init1:294:26 inotify_rm_watch:255:28
poll:7:- ppoll:271:73 pselect6:270:72 select:23:- signalfd:282:- signalfd4:289:74 timerfd_create:283:85
timerfd_gettime:287:87 timerfd_settime:286:86
# Memory of the process itself
brk:12:214 get_mempolicy:239:236 madvise:28:233 map_shadow_stack:453:453 mbind:237:235 membarrier:324:283
mincore:27:232 mlock:149:228 mlock2:325:284 mlockall:151:230 mmap:9:222 mprotect:10:226 mremap:25:216 mseal:462:462
msync:26:227 munlock:150:229 munlockall:152:231 munmap:11:215 pkey_alloc:330:289 pkey_free:331:290
pkey_mprotect:329:288 set_mempolicy:238:237
# Clocks and timers; setting a clock needs a capability
adjtimex:159:171 alarm:37:- clock_adjtime:305:266 clock_getres:229:114 clock_gettime:228:113 clock_nanosleep:230:115
getitimer:36:102 gettimeofday:96:169 nanosleep:35:101 setitimer:38:103 time:201:- timer_create:222:107
timer_delete:226:111 timer_getoverrun:225:109 timer_gettime:224:108 timer_settime:223:110 times:100:153
# Signals
kill:62:129 pause:34:- pidfd_send_signal:424:424 restart_syscall:219:128 rt_sigaction:13:134 rt_sigpending:127:136
rt_sigprocmask:14:135 rt_sigqueueinfo:129:138 rt_sigreturn:15:139 rt_sigsuspend:130:133 rt_sigtimedwait:128:137
rt_tgsigqueueinfo:297:240 sigaltstack:131:132 tgkill:234:131 tkill:200:130
# Users, groups, sessions; changing them needs capabilities that only the launcher has
capget:125:90 capset:126:91 getegid:108:177 geteuid:107:175 getgid:104:176 getgroups:115:158 getpgid:121:155
getpgrp:111:- getresgid:120:150 getresuid:118:148 getsid:124:156 getuid:102:174 setfsgid:123:152 setfsuid:122:151
setgid:106:144 setgroups:116:159 setpgid:109:154 setregid:114:143 setresgid:119:149 setresuid:117:147 setreuid:113:145
setsid:112:157 setuid:105:146
# Processes, threads, scheduling, limits, debuggers of own processes
arch_prctl:158:- execve:59:221 execveat:322:281 exit:60:93 exit_group:231:94 fork:57:- futex:202:98
futex_requeue:456:456 futex_wait:455:455 futex_waitv:449:449 futex_wake:454:454 get_robust_list:274:100 getcpu:309:168
getpid:39:172 getppid:110:173 getpriority:140:141 getrandom:318:278 getrlimit:97:163 getrusage:98:165 gettid:186:178
ioprio_get:252:31 ioprio_set:251:30 landlock_add_rule:445:445 landlock_create_ruleset:444:444
landlock_restrict_self:446:446 pidfd_getfd:438:438 pidfd_open:434:434 prctl:157:167 prlimit64:302:261
process_vm_readv:310:270 process_vm_writev:311:271 ptrace:101:117 rseq:334:293 sched_get_priority_max:146:125
sched_get_priority_min:147:126 sched_getaffinity:204:123 sched_getattr:315:275 sched_getparam:143:121
sched_getscheduler:145:120 sched_rr_get_interval:148:127 sched_setaffinity:203:122 sched_setattr:314:274
sched_setparam:142:118 sched_setscheduler:144:119 sched_yield:24:124 seccomp:317:277 set_robust_list:273:99
set_tid_address:218:96 setpriority:141:140 setrlimit:160:164 sysinfo:99:179 uname:63:160 uretprobe:335:- vfork:58:-
wait4:61:260 waitid:247:95
"""
"""Calls that are always allowed. Five others depend on their arguments (seccomp.py)."""

PRIVILEGED = """
acct:163:89 bpf:321:280 chroot:161:51 clock_settime:227:112 delete_module:176:106 fanotify_init:300:262
finit_module:313:273 fsconfig:431:431 fsmount:432:432 fsopen:430:430 fspick:433:433 init_module:175:105 ioperm:173:-
iopl:172:- kexec_file_load:320:294 kexec_load:246:104 mount:165:40 mount_setattr:442:442 move_mount:429:429
move_pages:279:239 open_by_handle_at:304:265 open_tree:428:428 perf_event_open:298:241 pivot_root:155:41
quotactl:179:60 quotactl_fd:443:443 reboot:169:142 setdomainname:171:162 sethostname:170:161 setns:308:268
settimeofday:164:170 swapoff:168:225 swapon:167:224 syslog:103:116 umount2:166:39 unshare:272:97 vhangup:153:58
"""
"""Calls that every system refuses to unprivileged programs, with EPERM. Any other call fails with ENOSYS."""


def numbers(table: str, machine: str) -> dict[str, int]:
    """Return the numbers of the calls in a table by name, without those that the processor `machine` lacks."""
    entries = [entry.split(":") for line in table.splitlines() if not line.startswith("#") for entry in line.split()]
    column = 1 if machine == "x86_64" else 2
    return {entry[0]: int(entry[column]) for entry in entries if entry[column] != "-"}
