/* Who a command runs as: the entry of a user in /etc/passwd and the groups of /etc/group, as a login has them. */

enum { GROUPS = 256 };
static struct { uint32_t uid, gid, groups[GROUPS]; size_t count; char *name, *home, *shell; } account;

/* Calls ``each`` with the lines of a file, a NUL at their end, until it says that it has found what it looks for. */
static int each_line(const char *path, int (*each)(char *line)) {
    static char text[65536];
    size_t have = 0;
    int found = 0;
    long n = 1, fd = call(OPENAT, AT_FDCWD, (long)path, O_CLOEXEC, 0, 0);
    if (fd < 0) return 0;
    while (!found && n > 0) {
        n = call(READ, fd, (long)(text + have), (long)(sizeof text - 1 - have), 0, 0);
        if (n > 0) have += (size_t)n;
        else if (have) text[have++] = '\n';
        char *line = text, *end = text + have;
        for (char *at = text; at < end && !found; at++) {
            if (*at != '\n') continue;
            *at = 0;
            found = each(line);
            line = at + 1;
        }
        have = (size_t)(end - line);
        if (have == sizeof text - 1) have = 0; /* no line of an account is that long */
        memcpy(text, line, have);
    }
    call(CLOSE, fd, 0, 0, 0, 0);
    return found;
}
/* The text up to the next separator, which becomes its end; ``at`` is behind it then. */
static char *field(char **at, char separator) {
    char *begin = *at, *end = begin;
    while (*end && *end != separator) end++;
    *at = *end ? end + 1 : end;
    *end = 0;
    return begin;
}
/* The number a text is, -1 for any other text. */
static long number(const char *text) {
    unsigned long n = 0;
    if (!*text) return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || n > 0xfffffffe) return -1;
        n = n * 10 + (unsigned long)(*text - '0');
    }
    return n <= 0xfffffffe ? (long)n : -1;
}
static int equal(const char *a, const char *b) { return same((const uint8_t *)a, (const uint8_t *)b, length_of(a) + 1); }

static const char *wanted;
static int is_wanted(char *line) {
    static char entry[4096];
    if (length_of(line) >= sizeof entry) return 0;
    memcpy(entry, line, length_of(line) + 1);
    char *at = entry, *name = field(&at, ':');
    field(&at, ':');
    long uid = number(field(&at, ':')), gid = number(field(&at, ':'));
    field(&at, ':');
    char *home = field(&at, ':'), *shell = field(&at, ':');
    if (uid < 0 || gid < 0 || !(equal(name, wanted) || number(wanted) == uid)) return 0;
    account.uid = (uint32_t)uid;
    account.gid = (uint32_t)gid;
    account.name = name;
    account.home = *home ? home : "/";
    account.shell = *shell ? shell : "/bin/sh";
    return 1;
}
static int add_group(char *line) {
    char *at = line;
    field(&at, ':');
    field(&at, ':');
    long gid = number(field(&at, ':'));
    while (*at && gid >= 0 && account.count < GROUPS)
        if (equal(field(&at, ','), account.name)) { account.groups[account.count++] = (uint32_t)gid; break; }
    return 0;
}
/* Fills in ``account`` for a name or a number, for root where there is neither; 0 when nobody is called so. */
static int look_up(const char *user) {
    wanted = *user ? user : "0";
    account.name = "root", account.home = "/root", account.shell = "/bin/sh";
    account.uid = account.gid = 0;
    account.count = 0;
    if (!each_line("/etc/passwd", is_wanted) && *user) return 0;
    if (!account.uid) return 1;
    account.groups[account.count++] = account.gid;
    each_line("/etc/group", add_group);
    return 1;
}
