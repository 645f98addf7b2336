/* What Python sees of the native part: read by build.py as cffi's cdef.  "...;" lets the C compiler
 * complete a structure. */

#define PAGE_PRESENT ...

#define REGION_ZERO ...
#define REGION_BYTES ...
#define REGION_PAGES ...
#define REGION_UNAVAILABLE ...
#define REGION_NATIVE ...
#define REGION_BORN ...
#define REGION_GROWTH ...
#define REGION_FILE ...
#define WRITER_PROGRAM ...
#define WRITER_GDB ...
#define WRITER_MALLOC ...
#define RUN_STOPPED ...
#define RUN_CONTROL ...
#define RUN_OUTPUT ...
#define RUN_EXITING ...
#define RUN_GONE ...
#define RUN_WAITING ...
#define RUN_KILLING ...
#define RECORD_ANONYMOUS ...
#define RECORD_FILE ...
#define RECORD_WHOLE ...
#define RECORD_SHARED ...
#define RECORD_SHARED_WHOLE ...
#define RECORD_TRACKED ...
#define RECORD_FRESH ...
#define RECORD_UNTRACKED ...
#define REFUSED_MAX ...
#define STACK_WORDS ...

struct error { char text[256]; ...; };

struct page_store { uint64_t count; ...; };
void page_store_init(struct page_store *store, const uint8_t *pages, uint64_t pages_len,
		     const uint32_t *sums, uint64_t sums_len);
uint32_t page_store_crc(const struct page_store *store, const uint8_t *bytes, size_t len);
int page_store_read(const struct page_store *store, uint32_t slot, uint8_t *to);

struct region {
	uint64_t start, end;
	const uint8_t *bytes;
	uint64_t bytes_len;
	const struct page_store *store;
	const uint32_t *slots;
	int prot, kind;
	uint32_t flags;
	...;
};
struct regions { struct region *at; size_t count; ...; };
int regions_copy(struct regions *to, const struct regions *from);
int regions_set(struct regions *regions, const struct region *region);
const struct region *regions_find(const struct regions *regions, uint64_t address);
void regions_deinit(struct regions *regions);

struct access { uint64_t pc, sp, address; uint32_t tid; ...; };
struct pages { size_t written_count; ...; };

struct pager {
	struct regions regions, recorded;
	struct pages pages;
	bool running, layout_changed, in_malloc;
	uint64_t faults, fault_ns, fed, lost_page;
	...;
};
int pager_init(struct pager *pager);
void pager_deinit(struct pager *pager);
int pager_populate_range(struct pager *pager, uint64_t start, uint64_t end);
int pager_read(struct pager *pager, uint64_t address, uint8_t *to, size_t len, size_t *done);
int pager_write(struct pager *pager, uint64_t address, const uint8_t *from, size_t len);
int pager_breakpoint_insert(struct pager *pager, uint64_t address);
int pager_breakpoint_remove(struct pager *pager, uint64_t address);

struct refused { int64_t nr; uint64_t args[6]; int error; ...; };
struct run { int end, signal, status; bool interrupted, stepped; uint64_t pc, address; uint8_t siginfo[128]; ...; };
struct vessel {
	int pid;
	int output_fd, how;
	uint64_t gate, gate_bytes;
	struct error error;
	int recorded_pid, recorded_tid;
	uint64_t brk_start, brk_now;
	struct refused refused[...];
	uint32_t refused_count;
	bool hardware, kernel_changed, at_exit;
	...;
};
void vessel_init(struct vessel *vessel);
int vessel_create(struct vessel *vessel, struct pager *pager);
void vessel_destroy(struct vessel *vessel);
int vessel_get_registers(struct vessel *vessel, struct user_regs_struct *regs);
int vessel_set_registers(struct vessel *vessel, const struct user_regs_struct *regs);
int vessel_get_xstate(struct vessel *vessel, void *buffer, size_t room);
int vessel_set_xstate(struct vessel *vessel, const void *buffer, size_t len);
int vessel_set_sigmask(struct vessel *vessel, uint64_t mask);
int vessel_get_sigmask(struct vessel *vessel, uint64_t *mask);
bool vessel_is_alive(struct vessel *vessel);
int vessel_set_siginfo(struct vessel *vessel, const uint8_t *siginfo);
int vessel_set_debug_register(struct vessel *vessel, int number, uint64_t value);
int vessel_get_debug_register(struct vessel *vessel, int number, uint64_t *value);
int vessel_resume(struct vessel *vessel, int mode, int signal, uint64_t low, uint64_t high);
int vessel_wait(struct vessel *vessel, int control_fd, struct run *run);
int vessel_interrupt(struct vessel *vessel);
bool vessel_signal_is_fatal(struct vessel *vessel, int signal);

struct change {
	uint64_t page;
	struct access first;
	uint8_t writers;
	uint32_t bytes_changed;
	uint8_t *before;
	uint8_t *after;
	const uint64_t *stack;
	...;
};
struct changes { struct change *at; size_t count; bool truncated; ...; };
void changes_deinit(struct changes *changes);
int transaction_collect(struct pager *pager, struct changes *changes);
int transaction_collect_all(struct pager *pager, struct changes *changes);
int transaction_rearm(struct pager *pager);
int transaction_commit(struct pager *pager);
int transaction_discard(struct pager *pager, bool rebuild);
int transaction_end_malloc(struct pager *pager);
size_t pages_count_dirty(const struct pages *pages);
int transaction_reset(struct pager *pager);
uint32_t count_changed(const uint8_t *before, const uint8_t *after, size_t len);
size_t diff_runs(const uint8_t *before, const uint8_t *after, size_t gap, uint16_t *runs, size_t room);

size_t callers_find(struct pager *pager, const uint64_t *stack, size_t words, uint64_t *callers,
		    size_t room);

int uffd_probe(uint64_t *features, int *how);
int cpu_xsave_component(int number, uint32_t *offset, uint32_t *size);
uint64_t cpu_xcr0(void);

struct page_range { uint64_t start, end, categories; };
int pagemap_scan(int pid, uint64_t start, uint64_t end, uint64_t categories,
		 struct page_range *ranges, size_t room);

struct record_map { uint64_t start, end; uint32_t how, state; bool code; ...; };
struct ranges { struct page_range *at; size_t count; ...; };
struct record_piece { uint64_t start, end, bytes; };
struct record {
	bool direct, scans, read_all;
	int uffd;
	struct ranges dirty, present, before, traps;
	size_t range_cursor;
	struct error error;
	...;
};
int record_init(struct record *record, int pid, int mem, int pagemap, int uffd);
void record_deinit(struct record *record);
int record_scan(struct record *record, struct record_map *maps, size_t count);
int record_finish(struct record *record);
int64_t record_copy(struct record *record, uint8_t *to, size_t len, struct record_piece *pieces,
		    size_t room, size_t *done);
int ranges_subtract(struct ranges *out, const struct ranges *from, const struct ranges *less,
		    uint64_t start, uint64_t end);
void ranges_deinit(struct ranges *ranges);
