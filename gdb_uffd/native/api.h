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
#define REGION_SHARED ...
#define REGION_UNKNOWN ...
#define REGION_BEYOND ...
#define WRITER_PROGRAM ...
#define WRITER_GDB ...
#define WRITER_MALLOC ...
#define WRITER_ASSIGNMENT ...
#define RUN_STOPPED ...
#define RUN_CONTROL ...
#define RUN_OUTPUT ...
#define RUN_EXITING ...
#define RUN_GONE ...
#define RUN_WAITING ...
#define RUN_KILLING ...
#define RUN_TIMEOUT ...
#define RUN_MEMORY ...
#define RUN_FAILED ...
#define RUN_CALL ...
#define RUN_WATCH ...
#define TOUCH_READ ...
#define TOUCH_WRITE ...
#define TOUCH_RUN ...
#define WATCH_BYTES_MAX ...
#define DEBUG_SLOTS ...
#define DEBUG_EXECUTE ...
#define DEBUG_WRITE ...
#define DEBUG_READ ...
#define DEBUG_ACCESS ...
#define RECORD_ANONYMOUS ...
#define RECORD_FILE ...
#define RECORD_WHOLE ...
#define RECORD_SHARED ...
#define RECORD_SHARED_WHOLE ...
#define RECORD_TRACKED ...
#define RECORD_FRESH ...
#define RECORD_UNTRACKED ...
#define REFUSED_MAX ...
#define TRACKER_WP_SYNC ...
#define TRACKER_WP_ASYNC ...
#define TRACKER_SOFT_DIRTY ...
#define TRACKER_COMPARE ...
#define UFFD_DEVICE ...
#define UFFD_SYSCALL ...
#define UFFD_USER_MODE ...
#define RULES ...
#define OPENED_NAMES_MAX ...
#define DESCRIPTORS_MAX ...
#define OPENED_PIPE ...
#define OPENED_PAIR ...
#define OPENED_EVENT ...
#define OPENED_SIGNALS ...
#define OPENED_EPOLL ...
#define OPENED_TIMER ...

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

struct access { uint64_t pc, sp, address; uint32_t tid, call; ...; };
struct touch { uint64_t page; struct access who; uint64_t *callers; uint8_t how; bool recorded; ...; };
struct touches { bool on; struct touch *at; size_t count, missed; ...; };
struct fed { uint64_t *at; size_t count, missed; ...; };
struct watch { uint64_t start, end; bool pages, all; uint8_t *old, *now; int64_t call; ...; };
struct pages { size_t written_count; ...; };

struct uffd_offer { bool known; int way; int rc[3]; uint64_t features, ioctls; ...; };
int uffd_negotiate(struct uffd_offer *offer);
struct tracker { int kind; struct uffd_offer offer; uint64_t collections, collect_ns; ...; };
#define SCAN_UNPOPULATED_WRITTEN ...
#define SCAN_DROPPED_CLEAN ...
#define SCAN_DROPPED_LOST ...
int trial_run(int kind, const struct uffd_offer *offer, struct error *error);
int pagemap_quirks(const struct uffd_offer *offer);
uint64_t tracker_features(int kind, uint64_t offered, uint64_t *lacking);

struct code_space { uint64_t call_floor; struct { uint64_t low, high, address, len; } frames; ...; };
struct pager {
	struct tracker tracker;
	struct regions regions, recorded, at_tx, at_call;
	struct pages pages;
	bool running, layout_changed, layout_at_call, in_malloc;
	uint64_t faults, fault_ns, fed, fed_ahead, lost_page, limit, unmoved, emptied_more;
	uint64_t unknown_zeros, unknown_file;
	bool user_mode_only;
	uint64_t planted[...];
	size_t planted_count;
	struct fed fed_log;
	struct touches touches;
	struct watch watch;
	struct code_space code;
	...;
};
void watch_deinit(struct watch *watch);
int watch_start(struct pager *pager, uint64_t start, uint64_t end, bool pages);
void watch_accept(struct watch *watch, uint64_t low, uint64_t high);
int watch_compare(struct pager *pager, bool all, uint64_t *low, uint64_t *high);
int watch_timer(unsigned int milliseconds);
int user_store(struct pager *pager, uint64_t address, const void *from, size_t len);
int pager_init(struct pager *pager);
void pager_deinit(struct pager *pager);
int tracker_collect(struct pager *pager);
int feed_range(struct pager *pager, uint64_t start, uint64_t end);
int memory_read(struct pager *pager, uint64_t address, uint8_t *to, size_t len, size_t *done);
int gdb_write(struct pager *pager, uint64_t address, const uint8_t *from, size_t len, int writer);
int breakpoint_insert(struct pager *pager, uint64_t address);
int breakpoint_remove(struct pager *pager, uint64_t address);
void catch_nothing(struct vessel *vessel);
void catch_everything(struct vessel *vessel);
void catch_one(struct vessel *vessel, uint64_t nr);
int breakpoint_plant(struct pager *pager, uint64_t address, bool in);

struct rule { uint8_t action; bool traced; int16_t result; uint8_t kind[6]; uint16_t size[6]; ...; };
struct policy { struct rule rules[...]; int level; bool read_files, real_clock, ignore_locks; ...; };
struct system_call { uint64_t nr; uint64_t args[6]; uint64_t pc; int table; ...; };
struct captured { uint8_t argument; bool cut; uint16_t len; uint8_t bytes[...]; ...; };
struct refused { struct system_call call; int error; uint32_t times, others; struct captured memory[2]; ...; };
struct opened_name { uint16_t nr, len; bool cut; uint8_t bytes[...]; ...; };
struct names { char *text; size_t len; uint32_t count, more; ...; };
struct adopted { int number, kind; ...; };
struct passed { uint64_t address; uint32_t value; int32_t owner; uint32_t times; ...; };
struct identity {
	int pid, tid, ppid, pgrp, sid;
	uint32_t uid, euid, gid, egid;
	int64_t realtime_ns, monotonic_ns, cpu_ns;
	char uname[6][65];
	char cwd[...], executable[...], name[...];
	uint8_t descriptors[...];
	bool descriptors_told;
	uint8_t descriptor_kind[...];
	int16_t descriptor_peer[...];
	...;
};
struct kernel_state { uint64_t elapsed_ns; char cwd[...]; ...; };
struct run {
	int end, signal, status;
	bool interrupted, entry, thread, stepped;
	uint64_t pc, address, low, high;
	int64_t call;
	uint8_t siginfo[128];
	...;
};
struct debug_slot { uint64_t address; uint32_t length, kind; ...; };
struct registers { ...; };
uint64_t arch_user_end(void);
struct vessel {
	int pid;
	int output_fd, listener, how;
	bool keeps_cpu;
	uint64_t restorer, restorer_bytes;
	struct error error;
	struct policy policy;
	struct identity record;
	struct kernel_state kernel_state;
	uint64_t brk_start, brk_now;
	struct refused refused[...];
	uint32_t refused_count, refused_more;
	uint32_t granted[...];
	uint32_t withdrawn[...];
	uint16_t granted_order[...];
	uint32_t granted_count;
	struct opened_name opened[...];
	uint32_t opened_count;
	struct names read;
	struct adopted adopted[...];
	uint32_t adopted_count;
	const int32_t *tids;
	uint32_t tid_count;
	struct passed passed[...];
	uint32_t passed_count;
	size_t out_len;
	uint64_t deadline_ns, felt_calls;
	int (*own_file)(void *context, const char *name);
	void *own_context;
	size_t slot_count;
	bool kernel_changed, at_exit, no_listener;
	...;
};
void policy_init(struct vessel *vessel);
int vessel_create(struct vessel *vessel, struct pager *pager);
void vessel_destroy(struct vessel *vessel);
int task_get_registers(struct vessel *vessel, struct registers *regs);
int task_set_registers(struct vessel *vessel, const struct registers *regs);
int task_get_regset(struct vessel *vessel, uint64_t kind, void *buffer, size_t room);
int task_set_regset(struct vessel *vessel, uint64_t kind, const void *buffer, size_t len);
int task_set_sigmask(struct vessel *vessel, uint64_t mask);
int task_get_sigmask(struct vessel *vessel, uint64_t *mask);
bool task_is_alive(struct vessel *vessel);
int task_set_siginfo(struct vessel *vessel, const uint8_t *siginfo);
int task_set_debug(struct vessel *vessel, const struct debug_slot *slots, size_t count);
int task_debug_hits(struct vessel *vessel);
int run_resume(struct vessel *vessel, int mode, int signal, uint64_t low, uint64_t high);
int wait_vessel(struct vessel *vessel, int control_fd, struct run *run);
void task_leave_cpu(struct vessel *vessel);
int task_interrupt(struct vessel *vessel);
int run_step_over(struct vessel *vessel, uint64_t address);
void account_begin(struct vessel *vessel);
void account_end(struct vessel *vessel, bool keep);
void vessel_deinit(struct vessel *vessel);
void account_forget(struct vessel *vessel);
void account_note_past(struct vessel *vessel);
void account_copy(struct vessel *vessel, const struct vessel *other);
void account_copy_past(struct vessel *vessel, const struct vessel *other);
uint64_t timers_left(const struct vessel *vessel);
void timers_disarm(struct vessel *vessel);
size_t account_take_output(struct vessel *vessel, uint8_t *to, size_t room);
extern "Python" int own_file(void *context, const char *name);
bool task_signal_is_fatal(struct vessel *vessel, int signal);

struct change {
	uint64_t page;
	struct access first;
	uint8_t writers;
	uint32_t bytes_changed;
	uint8_t *before;
	uint8_t *after;
	bool counts_malloc;
	const uint64_t *callers;
	...;
};
struct changes { struct change *at; size_t count; bool truncated; ...; };
#define ARCH_UNWINDS ...
#define IMAGES_MAX ...
int transaction_load(struct pager *pager, struct changes *changes, size_t index);
void changes_deinit(struct changes *changes);
int transaction_collect(struct pager *pager, struct changes *changes);
int transaction_collect_all(struct pager *pager, struct changes *changes);
int transaction_rearm(struct pager *pager);
int transaction_commit(struct pager *pager);
int transaction_discard(struct pager *pager, bool rebuild);
int gdb_begin_program(struct pager *pager);
int gdb_end_malloc(struct pager *pager);
bool transaction_program_wrote(const struct pager *pager, uint64_t page);
size_t pages_count_dirty(const struct pages *pages);
int transaction_reset(struct pager *pager);
uint32_t changes_count(const uint8_t *before, const uint8_t *after, size_t len);
size_t changes_runs(const uint8_t *before, const uint8_t *after, size_t gap, uint16_t *runs, size_t room);

struct undo { size_t count; bool layout_changed; ...; };
void undo_deinit(struct undo *undo);
int undo_take(struct undo *undo, struct pager *pager);
int undo_export(const struct undo *undo, struct pager *pager, struct pager *fresh);
size_t changes_differ(const struct changes *left, const struct changes *right, int writers,
		      uint64_t *first);


bool notify_is_available(void);
int cpu_xsave_component(int number, uint32_t *offset, uint32_t *size);
uint64_t cpu_xcr0(void);

struct page_range { uint64_t start, end, categories; };
int pagemap_scan(int pid, uint64_t start, uint64_t end, uint64_t categories,
		 struct page_range *ranges, size_t room);

#define VIEW_NOW ...
#define VIEW_BEFORE ...
#define VIEW_AFTER ...
#define VIEW_RECORDED ...
#define VIEW_OPEN ...
#define CHUNK_MMAPPED ...
#define CHUNK_USED ...
#define CHUNK_FREE ...
#define CHUNK_LISTED ...
#define CHUNK_TOP ...
#define CHUNK_FENCE ...
#define CHUNK_UNKNOWN ...

struct view { int kind; ...; };
int view_init(struct view *view);
void view_deinit(struct view *view);
void view_set(struct view *view, struct pager *pager, const struct changes *changes, int kind);
int view_read(struct view *view, uint64_t address, uint8_t *to, size_t len, size_t *done);

struct chunk { uint64_t at, size; uint32_t state, list; ...; };
#define CHUNKS_MAX ...
struct chunks { struct chunk *at; size_t count; bool broken; uint64_t broken_at; ...; };
void heap_chunks_deinit(struct chunks *chunks);
int heap_span(struct view *before, struct view *after, uint64_t start, uint64_t until,
	      uint64_t limit_before, uint64_t limit_after, struct chunks *was, struct chunks *is);
void heap_mark_listed(struct chunks *chunks, const uint64_t *listed, size_t count);
long heap_find(const struct chunks *chunks, uint64_t address);
struct heap_totals { uint64_t allocated, allocated_bytes, freed, freed_bytes; ...; };
void heap_compare(const struct chunks *was, const struct chunks *is, struct heap_totals *totals);
size_t heap_lists(struct view *view, uint64_t heads, size_t count, uint64_t skip, bool mangled,
		  uint64_t *out, size_t room, uint64_t stop[2]);
struct heap_index { uint64_t start; uint64_t next; bool broken; ...; };
void heap_index_init(struct heap_index *index, uint64_t start);
void heap_index_deinit(struct heap_index *index);
uint64_t heap_index_find(struct heap_index *index, struct view *view, uint64_t address, uint64_t limit);
void heap_index_forget(struct heap_index *index, uint64_t address);

#define FLAW_UNREADABLE ...
#define FLAW_ALIGNMENT ...
#define FLAW_SMALL ...
#define FLAW_BEYOND ...
#define FLAW_MMAPPED ...
#define FLAW_PREV_SIZE ...
#define FLAW_TOP ...
#define FLAW_NOT_A_BLOCK ...
#define FLAW_IN_USE ...
#define FLAW_LIST_SIZE ...
#define FLAW_TWICE ...
#define FLAW_UNLISTED ...
#define FAULTS_MAX ...
#define WALK_WHOLE ...
#define WALK_BROKEN ...
#define WALK_FENCED ...
#define WALK_FULL ...
#define LIST_WHOLE ...
#define LIST_UNALIGNED ...
#define LIST_UNREADABLE ...
#define LIST_LOOP ...
#define LIST_BACK ...
#define LIST_FULL ...
struct heap_list {
	uint64_t low, high;
	bool single;
	uint32_t end;
	uint64_t end_at, link, entries, blocks, bytes;
	...;
};
struct heap_entry { uint64_t at; uint32_t list; bool met; ...; };
struct heap_entries { struct heap_entry *at; size_t count; ...; };
void heap_list_deinit(struct heap_entries *entries);
void heap_list_sort(struct heap_entries *entries);
size_t heap_list_unmet(const struct heap_entries *entries, size_t *indexes, size_t room);
int heap_list_single(struct view *view, uint64_t head, uint64_t skip, uint64_t back, bool mangled,
		     struct heap_entries *entries, struct heap_list *list, uint32_t number);
int heap_list_double(struct view *view, uint64_t bin, struct heap_entries *entries,
		     struct heap_list *list, uint32_t number);
struct heap_fault { uint64_t at, value, other; uint32_t flaw, list; ...; };
struct heap_faults { struct heap_fault at[...]; size_t count; ...; };
struct heap_count { uint64_t blocks[8], bytes[8], largest; ...; };
int heap_walk(struct view *view, uint64_t start, uint64_t limit, uint64_t top, struct chunks *chunks,
	      struct heap_faults *faults);
void heap_walk_mark(struct view *view, struct chunks *chunks, struct heap_entries *entries,
		    struct heap_list *lists, size_t list_count, struct heap_faults *faults);
void heap_walk_count(const struct chunks *chunks, struct heap_count *count);
int heap_walk_mapped(struct view *view, uint64_t low, uint64_t high, struct chunks *chunks);
struct heap_ref { uint64_t at, value; uint32_t wanted; ...; };
size_t heap_refs_find(struct view *view, uint64_t start, uint64_t end, const uint64_t *starts,
		      const uint64_t *ends, size_t count, struct heap_ref *out, size_t room,
		      uint64_t *next, uint64_t *lost);

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
