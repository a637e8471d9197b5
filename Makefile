# memkit - plain make, no generator. `make help` lists what there is.
#
# Everything lands in build/. Objects and libraries lie in a directory named by a checksum of the
# compiler and the flags, so that CC=clang or SAN=address never meets objects of another build;
# build/lib and build/bin point at the build made last.

CC       ?= cc
ifeq ($(origin CXX),default)
CXX      := $(if $(findstring clang,$(CC)),clang++,g++)
endif
CFLAGS   ?= -O2 -g
CXXFLAGS ?= $(CFLAGS)
PREFIX   ?= $(or $(prefix),/usr/local)
LIBDIR   ?= $(or $(libdir),$(PREFIX)/lib)
INCLUDEDIR ?= $(or $(includedir),$(PREFIX)/include)
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig
MANDIR   ?= $(or $(mandir),$(PREFIX)/share/man)
SAN      ?=
MEMKIT_TRACK ?=
WERROR   ?= -Werror
V        ?= 0

VERSION := $(shell sed -n 's/^.define MEMKIT_VERSION *"\(.*\)"/\1/p' include/memkit/version.h)
SOMAJOR := $(firstword $(subst ., ,$(VERSION)))

WARNINGS := -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wundef -Wvla $(WERROR) \
            -Wstrict-prototypes -Wmissing-prototypes
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
ifneq ($(filter-out valgrind,$(MEMKIT_TRACK)),)
$(error MEMKIT_TRACK is '$(MEMKIT_TRACK)': only valgrind is known)
endif
BASE     := -std=gnu11 -pthread -Iinclude -Isrc $(WARNINGS) $(SANFLAGS) $(if $(MEMKIT_TRACK),-DMEMKIT_TRACK_VALGRIND)
LIBFLAGS := -fPIC -fvisibility=hidden -fno-semantic-interposition
BASE_CXX := -std=gnu++17 -fsized-deallocation $(filter-out -std=gnu11 -Wstrict-prototypes -Wmissing-prototypes,$(BASE))
# A compiler reads PIE code for programs by default on Debian; -fPIC objects serve both libraries.
LDALL    := -pthread $(SANFLAGS) $(LDFLAGS)
# nodelete: a thread's end runs a destructor of ours, also after a dlclose.
SOLD     := -shared -Wl,-Bsymbolic-functions $(if $(SAN),,-Wl,-z,defs) -Wl,-z,relro -Wl,-z,now -Wl,-z,nodelete

CONF := $(shell printf '%s' '$(CC) $(CXX) $(CPPFLAGS) $(CFLAGS) $(CXXFLAGS) $(BASE) $(LIBFLAGS) $(LDALL)' | cksum | cut -d' ' -f1)
B    := build/$(CONF)

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-7s %s\n'
endif

# With `deps` among the goals nothing is compiled before it is done, and what it installs counts as there.
DEPS_GOALS := $(filter deps deps-%,$(MAKECMDGOALS))
BENCH_GOALS := $(filter bench bench-%,$(MAKECMDGOALS))
# HASH: make hands a backslash before one on to the shell.
HASH := \#
HAVE_MHD := $(if $(DEPS_GOALS),y,$(shell \
    printf '$(HASH)include <microhttpd.h>\n$(HASH)include <uthash.h>\n' | \
    $(CC) $(CPPFLAGS) -E - >/dev/null 2>&1 && echo y))
HAVE_LISTEN := $(if $(DEPS_GOALS),y,$(shell \
    printf '$(HASH)include <microhttpd.h>\n' | $(CC) $(CPPFLAGS) -E - >/dev/null 2>&1 && echo y))
BRINGS_GBENCH := $(filter deps-ci deps-bench,$(DEPS_GOALS))$(and $(DEPS_GOALS),$(BENCH_GOALS))
HAVE_GBENCH := $(if $(BRINGS_GBENCH),y,$(shell \
    printf '$(HASH)if !__has_include(<benchmark/benchmark.h>)\n$(HASH)error\n$(HASH)endif\n' | \
    $(CXX) $(CPPFLAGS) -E -x c++ - >/dev/null 2>&1 && echo y))

CORE_SRC := $(sort $(wildcard src/core/*.c))
# libmemkit-prof: the hook and the profiler; and of the core the byte buffer and the process's
# metrics, for its own use (not exported).
PROF_SRC := $(sort $(wildcard src/hook/*.c src/prof/*.c)) src/core/buf.c src/core/fault.c src/core/metrics_process.c
# What MEMKIT_LISTEN loads, where libmicrohttpd is: nobody else needs that.
LISTEN_SRC := $(sort $(wildcard src/listen/*.c))
CORE_OBJ := $(CORE_SRC:%.c=$(B)/%.o)
LISTEN_OBJ := $(LISTEN_SRC:%.c=$(B)/%.o)
PROF_OBJ := $(PROF_SRC:%.c=$(B)/%.o)

CORE_A  := $(B)/libmemkit.a
CORE_SO := $(B)/libmemkit.so.$(VERSION)
PROF_A  := $(B)/libmemkit-prof.a
PROF_SO := $(B)/libmemkit-prof.so.$(VERSION)
LISTEN_SO := $(B)/libmemkit-listen.so.$(VERSION)
LIBS    := $(CORE_A) $(CORE_SO) $(PROF_A) $(PROF_SO) $(if $(HAVE_LISTEN),$(LISTEN_SO))

SERVICE  := examples/service
FRONT    := $(addprefix $(B)/$(SERVICE)/,main.o config.o) $(patsubst %.c,$(B)/%.o,$(wildcard $(SERVICE)/front*.c))
LOAD     := $(patsubst %.c,$(B)/%.o,$(filter-out %/load_main.c,$(wildcard $(SERVICE)/load*.c)))
COMPARE  := $(patsubst %.c,$(B)/%.o,$(wildcard $(SERVICE)/compare*.c))
EXAMPLES := $(addprefix $(B)/,service-before service-after service-load service-compare)

TESTS := $(patsubst tests/%.c,$(B)/tests/%,$(sort $(wildcard tests/test_*.c)))
PROGS := $(patsubst tests/%.c,$(B)/tests/%,$(filter-out %/prog_gbench.c %/prog_unwind.c %/prog_lru_misuse.c %/prog_pool_misuse.c,$(sort $(wildcard tests/prog_*.c))))
GBENCH_PROGS := $(addprefix $(B)/tests/prog_gbench,$(if $(HAVE_GBENCH),-counted -uncounted))
# Programs of known stacks, by each compiler that is there and in each of these ways.
UNWIND_CCS := $(if $(SAN),,gcc $(shell command -v clang >/dev/null 2>&1 && echo clang))
UNWIND_WAYS := O0-fp-pie O0-nofp-nopie O1-fp-nopie O1-nofp-pie O2-nofp-pie O2-fp-nopie O3-fp-pie O3-nofp-nopie
UNWIND_PROGS := $(foreach cc,$(UNWIND_CCS),$(foreach p,prog_unwind prog_unwind_cxx,$(UNWIND_WAYS:%=$(B)/tests/$(p)-$(cc)-%)))
CXXPROGS := $(addprefix $(B)/tests/,prog_hook_cxx $(if $(SAN),,prog_hook_cxx_linked prog_hook_cxx_static))
TOOLS := $(patsubst tests/%.c,$(B)/tests/%,$(sort $(wildcard tests/tools_*.c)))
# What tests preload, or load.
TEST_LIBS := $(patsubst tests/%.c,$(B)/tests/%.so,$(sort $(wildcard tests/lib_*.c))) \
             $(addprefix $(B)/tests/,lib_cxx.so lib_cxx_static.so)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:

## all          the libraries, static and shared, and the example service
.PHONY: all
all: lib example

## lib          the libraries alone: needs a compiler and zlib; with libmicrohttpd also the listener
.PHONY: lib
lib: $(LIBS) links

## example      the example service, before and after, and its load generator
.PHONY: example
ifeq ($(HAVE_MHD),y)
example: $(EXAMPLES) links
else
example:
	@echo '  the example needs libmicrohttpd and uthash: left out (make deps brings them)'
endif

# The build made last under names that do not change.
.PHONY: links
links: $(LIBS)
	@mkdir -p build && case '$(B)' in build/*) ln -sfn $(CONF) build/lib && ln -sfn $(CONF) build/bin ;; esac

$(B)/%.o: %.c Makefile | $(DEPS_GOALS)
	$(say) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(BASE) $(OBJFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(B)/%.o: %.cc Makefile | $(DEPS_GOALS)
	$(say) CXX $<
	@mkdir -p $(@D)
	$(Q)$(CXX) $(CPPFLAGS) $(BASE_CXX) $(OBJFLAGS) $(CXXFLAGS) -MMD -MP -c -o $@ $<

$(B)/src/%.o: OBJFLAGS = $(LIBFLAGS)
# std::bad_alloc passes through it.
$(B)/src/hook/cxx.o: OBJFLAGS = $(LIBFLAGS) -fexceptions

$(CORE_A): $(CORE_OBJ)
$(PROF_A): $(PROF_OBJ)
%.a:
	$(say) AR $@
	$(Q)rm -f $@ && $(or $(AR),ar) rcs $@ $^

# $(call shared,objects,map,libraries): links $@ and its two links.
define shared
	$(say) LD $@
	$(Q)$(CC) $(LDALL) $(SOLD) -Wl,-soname,$(basename $(basename $(@F))) -Wl,--version-script=$(2) -o $@ $(1) $(3) -ldl
	$(Q)ln -sf $(@F) $(basename $(basename $@))
	$(Q)ln -sf $(@F) $(basename $(basename $(basename $@)))
endef

$(CORE_SO): $(CORE_OBJ) src/core/libmemkit.map
	$(call shared,$(CORE_OBJ),src/core/libmemkit.map)
$(PROF_SO): $(PROF_OBJ) src/hook/libmemkit-prof.map
	$(call shared,$(PROF_OBJ),src/hook/libmemkit-prof.map,-lz)

$(LISTEN_SO): $(LISTEN_OBJ) src/listen/libmemkit-listen.map
	$(call shared,$(LISTEN_OBJ),src/listen/libmemkit-listen.map,-lmicrohttpd)

# ---- the example service -------------------------------------------------------------------------------

# libmemkit-prof needs zlib.
WITH_PROF = $(if $(filter $(PROF_A),$^),-lz)
LINK = $(Q)$(CC) $(LDALL) -o $@ $(filter %.o,$^) $(LINK_FLAGS) $(filter %.a,$^) $(LDLIBS) $(WITH_PROF)

# The profiler is linked dynamically: preloaded too, by the comparison say, it is still one copy. It
# comes first, so that malloc is its.
SERVICES := $(B)/service-before $(B)/service-after
$(B)/service-before: $(B)/$(SERVICE)/before.o $(FRONT) $(CORE_A) | $(PROF_SO)
$(B)/service-after: $(B)/$(SERVICE)/after.o $(FRONT) $(CORE_A) | $(PROF_SO)
$(SERVICES): LDLIBS = -L$(B) -lmemkit-prof -lmicrohttpd
$(SERVICES): LINK_FLAGS = -Wl,-rpath,'$$ORIGIN:$$ORIGIN/..'
$(B)/service-load: $(B)/$(SERVICE)/load_main.o $(LOAD) $(CORE_A)
$(B)/service-compare: $(COMPARE) $(LOAD) $(CORE_A)
$(B)/service-load $(B)/service-compare: LDLIBS = -lm
$(EXAMPLES):
	$(say) LD $@
	$(LINK)

# How the comparison is run; DURATION=5 makes a short one.
COMPARE_DIR ?= build/compare
COMPARE_FLAGS = --duration $(or $(DURATION),30) --rate $(or $(RATE),10000) --ids $(or $(IDS),1000000) \
    --price-per-gib $(or $(PRICE_PER_GIB),3.00) \
    $(if $(ID_BYTES),--id-bytes $(ID_BYTES)) $(if $(SEED),--seed $(SEED)) $(if $(SATURATION),--saturation-seconds $(SATURATION)) \
    $(if $(TIMING),--timing-seconds $(TIMING))

## compare      the service before and after under the same load: one table, and curves: build/compare/report.html
##              (DURATION=30 RATE=10000 IDS=1000000 ID_BYTES= SEED= PRICE_PER_GIB=3.00 SATURATION=5 TIMING=5)
.PHONY: compare
compare: $(EXAMPLES) $(PROF_SO)
	$(Q)$(B)/service-compare --before $(B)/service-before --after $(B)/service-after \
	    --prof $(B)/libmemkit-prof.so.$(SOMAJOR) --out $(COMPARE_DIR) $(COMPARE_FLAGS)

# ---- benches -------------------------------------------------------------------------------------------

LINK_CXX = $(Q)$(CXX) $(LDALL) -o $@ $(filter %.o,$^) $(LINK_FLAGS) $(filter %.a,$^) -lbenchmark -lm -ldl $(WITH_PROF)
GBENCH   := $(addprefix $(B)/bench/,gbench.o gbench_report.o gbench_count.o)

BENCHES  := $(patsubst %.c,$(B)/%.o,$(sort $(wildcard bench/bench_*.c)))
# Both services' handlers in one program: the very sources, each under a name of its own.
HANDLERS := $(B)/bench/service_before.o $(B)/bench/service_after.o
$(HANDLERS): $(B)/bench/service_%.o: $(SERVICE)/%.c Makefile | $(DEPS_GOALS)
	$(say) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(BASE) $(CFLAGS) $(foreach f,init finish begin process end,-Dhandler_$(f)=$*_$(f)) -MMD -MP -c -o $@ $<

$(B)/bench/memkit-bench: $(BENCHES) $(HANDLERS) $(GBENCH) $(CORE_A) $(PROF_A)
	$(say) LD $@
	$(LINK_CXX)
$(B)/bench/memkit-bench: LINK_FLAGS = -Wl,--export-dynamic-symbol=memkit_prof_attach

# Repetitions of all benches take turns at random: what slows the machine for a while slows them all.
BENCH_RUN = $(Q)$(if $(HAVE_GBENCH),,echo 'bench: needs google-benchmark (make deps-bench)' >&2; exit 3;) \
    $(B)/bench/memkit-bench --benchmark_filter='$(or $(FILTER),.)' --benchmark_min_time=$(or $(BENCH_TIME),0.1) \
    --benchmark_repetitions=$(or $(BENCH_REPS),7) --benchmark_enable_random_interleaving=true

## bench        ns/op, allocs/op and B/op of every part, each beside malloc doing the same work (make deps-bench)
##              (FILTER=lru BENCH_TIME=0.1 seconds BENCH_REPS=7 repetitions)
.PHONY: bench
bench: $(if $(HAVE_GBENCH),$(B)/bench/memkit-bench)
	$(BENCH_RUN) --gbench_medians

## bench-json   the same as google-benchmark's JSON, every repetition (BENCH_OUT=build/bench.json)
.PHONY: bench-json
bench-json: $(if $(HAVE_GBENCH),$(B)/bench/memkit-bench)
	$(BENCH_RUN) --gbench_medians --benchmark_out=$(or $(BENCH_OUT),build/bench.json)

# Profilers beside each other: the work alone, linked with nothing; built for LeakSanitizer, where there is one; with
# the profiler linked in; and what runs all of them.
PROF_BENCH := $(addprefix $(B)/bench/,prof-bench prof_plain prof_inside)
PROF_BENCH_LEAK := $(if $(SAN),,$(B)/bench/prof_leak)
PROF_WORK := $(addprefix $(B)/bench/,prof_plain.o prof_workload.o)
$(B)/bench/prof_workload.o: OBJFLAGS = -fno-builtin-malloc
$(B)/bench/prof_plain: $(PROF_WORK)
$(B)/bench/prof_leak: $(PROF_WORK)
$(B)/bench/prof_leak: LINK_FLAGS = -fsanitize=leak
$(B)/bench/prof_inside: $(addprefix $(B)/bench/,prof_inside.o prof_workload.o) $(CORE_A) $(PROF_A)
$(B)/bench/prof_inside: LINK_FLAGS = -Wl,--export-dynamic-symbol=memkit_prof_attach
$(B)/bench/prof-bench: $(patsubst %,$(B)/bench/prof_%.o,main report rows run)
$(PROF_BENCH) $(PROF_BENCH_LEAK): LDLIBS = -ldl
$(PROF_BENCH):
	$(say) LD $@
	$(LINK)
# Not every compiler has the library for it; the bench says what is missing.
$(PROF_BENCH_LEAK):
	$(say) LD $@
	$(Q)$(CC) $(LDALL) -o $@ $(filter %.o,$^) $(LINK_FLAGS) $(LDLIBS) || echo '  no LeakSanitizer here'

## bench-prof   the heap profiler beside jemalloc's, gperftools', heaptrack and LeakSanitizer: ns a pair of malloc and
##              free, memory, instructions (make deps-bench; PROF_FLAGS='--rounds 7 --pairs 1000000 --json --all')
.PHONY: bench-prof
bench-prof: $(PROF_BENCH) $(PROF_BENCH_LEAK) $(B)/bench/empty_preload.so $(PROF_SO)
	$(Q)$(B)/bench/prof-bench --build $(abspath $(B)) $(PROF_FLAGS)

## bench-prof-service  what the profiler costs the example service: processor time a request, throughput
##              (DURATION=10 ROUNDS=3)
.PHONY: bench-prof-service
bench-prof-service: $(EXAMPLES) $(PROF_SO)
	$(Q)B=$(B) DURATION=$(or $(DURATION),10) ROUNDS=$(or $(ROUNDS),3) bench/prof_service.sh

# ---- tests ---------------------------------------------------------------------------------------------

$(TESTS) $(TOOLS): $(B)/tests/%: $(B)/tests/%.o $(CORE_A)
	$(say) LD $@
	$(LINK)
$(TESTS) $(TOOLS): LDLIBS = -lcmocka -lm -ldl
# Tests of what allocates see every malloc of the objects under test, and make some fail.
WRAPPED := $(addprefix $(B)/tests/,test_build test_buf test_pool test_pool_model test_pool_threads test_arena \
             test_arena_marks test_arena_model test_metrics test_fork test_takes) \
           $(addprefix $(B)/tests/test_lru_,held memory refs resize)
# What all of them do with bad input, and without memory.
MATRIX := $(patsubst tests/%.c,$(B)/tests/%,$(sort $(wildcard tests/test_matrix_*.c tests/test_oom*.c)))
WRAPPED += $(MATRIX)
$(MATRIX): $(B)/tests/support_matrix.o
$(B)/tests/test_matrix_prof: | $(PROF_SO) $(LISTEN_SO)
$(WRAPPED): $(B)/tests/support.o $(B)/tests/support_malloc.o
$(WRAPPED): LINK_FLAGS = -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=aligned_alloc,--wrap=free
# One that fails as pthread may.
$(B)/tests/test_oom_pool: LINK_FLAGS += -Wl,--wrap=pthread_create,--wrap=pthread_key_create,--wrap=pthread_setspecific
# One that looks at what is done under a lock, and comes in when it is free.
$(B)/tests/test_lru_resize: LINK_FLAGS += -Wl,--wrap=pthread_mutex_lock,--wrap=pthread_mutex_unlock
# One that is attached to as libmemkit-prof is.
$(B)/tests/test_takes: LINK_FLAGS += -Wl,--export-dynamic-symbol=memkit_prof_attach
HOOK_TESTS := $(filter $(B)/tests/test_hook% $(B)/tests/test_prof%,$(TESTS)) \
    $(filter $(addprefix $(B)/tests/tools_,mallocs readers flame pro%),$(TOOLS))
$(HOOK_TESTS): $(PROF_A)
$(filter $(B)/tests/tools_profiles%,$(TOOLS)): $(B)/tests/support_pprof.o
$(HOOK_TESTS): LINK_FLAGS = -Wl,--export-dynamic-symbol=memkit_prof_attach
# One that writes down what is asked of malloc.
$(B)/tests/test_prof_takes: $(B)/tests/support.o
$(B)/tests/test_prof_takes: LINK_FLAGS += -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=aligned_alloc,--wrap=free
# The writers of profiles, on profiles made up; one of them without memory, of malloc or of mmap.
WRITER_TESTS := $(addprefix $(B)/tests/,$(addprefix test_prof_,pprof folded svg text oom) tools_readers tools_flame)
$(WRITER_TESTS): $(addprefix $(B)/tests/,support.o support_profile.o)
$(B)/tests/test_prof_oom: $(B)/tests/support_malloc.o
$(B)/tests/test_prof_oom: LINK_FLAGS += -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=aligned_alloc,--wrap=free,--wrap=mmap,--wrap=munmap
$(B)/tests/tools_debug: | $(B)/tests/test_prof_listen
# The listener is loaded by name where it does not lie beside the program.
$(B)/tests/test_prof_listen: LINK_FLAGS += -Wl,-rpath,'$$ORIGIN/..'
$(B)/tests/test_prof_listen: | $(LISTEN_SO)
$(B)/tests/test_load $(B)/tests/test_load_run $(B)/tests/test_compare_figures: $(LOAD)
$(addprefix $(B)/tests/,test_compare_timing test_compare_html test_compare_chart tools_prometheus tools_browser): $(filter-out %/compare_main.o,$(COMPARE)) $(LOAD)

$(PROGS): $(B)/tests/%: $(B)/tests/%.o
	$(say) LD $@
	$(LINK)
$(PROGS): LDLIBS = -ldl
# One that is not position-independent: its addresses of malloc are its own PLT's.
$(B)/tests/prog_hook_nopie.o: OBJFLAGS = -fno-pie
$(B)/tests/prog_hook_nopie: LINK_FLAGS = -no-pie

# prog_unwind-COMPILER-LEVEL-FRAMES-KIND, with the unwinder alone.
UNWIND_OBJ := $(filter $(B)/src/prof/unwind%.o $(B)/src/prof/cfi%.o $(B)/src/prof/module.o $(B)/src/prof/mem.o $(B)/src/core/%,$(PROF_OBJ))
UNWIND_FLAGS = $(foreach w,$(subst -, ,$*),$(UNWIND_$(w)))
UNWIND_O0 := -O0
UNWIND_O1 := -O1
UNWIND_O2 := -O2
UNWIND_O3 := -O3
UNWIND_fp := -fno-omit-frame-pointer
UNWIND_nofp := -fomit-frame-pointer
UNWIND_pie := -fPIE -pie
UNWIND_nopie := -fno-pie -no-pie
# $(call unwind_program,prefix of its name,source,compiler,flags)
define unwind_program
$(B)/tests/$(1)-%: tests/$(2) tests/prog_unwind.h $$(UNWIND_OBJ) Makefile
	$$(say) LD $$@
	@mkdir -p $$(@D)
	$$(Q)$(3) $(4) -pthread -Wall -Wextra $$(WERROR) $$(UNWIND_FLAGS) -o $$@ $$< $$(UNWIND_OBJ) -ldl
endef
$(eval $(call unwind_program,prog_unwind-gcc,prog_unwind.c,gcc,-std=gnu11))
$(eval $(call unwind_program,prog_unwind-clang,prog_unwind.c,clang,-std=gnu11))
$(eval $(call unwind_program,prog_unwind_cxx-gcc,prog_unwind_cxx.cc,g++,-std=gnu++17))
$(eval $(call unwind_program,prog_unwind_cxx-clang,prog_unwind_cxx.cc,clang++,-std=gnu++17))

# Benches of known figures, with the hook and without.
$(GBENCH_PROGS): $(B)/tests/prog_gbench-%: $(B)/tests/prog_gbench.o $(GBENCH) $(CORE_A)
	$(say) LD $@
	$(LINK_CXX)
$(B)/tests/prog_gbench-counted: $(PROF_A)
$(B)/tests/prog_gbench-counted: LINK_FLAGS = -Wl,--export-dynamic-symbol=memkit_prof_attach

$(B)/tests/lib_%.o: OBJFLAGS = -fPIC
$(filter-out %_cxx.so %_cxx_static.so,$(TEST_LIBS)): %.so: %.o
	$(say) LD $@
	$(Q)$(CC) $(LDALL) -shared -o $@ $^ -ldl

# C++: over libstdc++ as it is, with the hook linked, and with it and libstdc++ linked statically.
LIB_CXX := $(B)/tests/lib_cxx.so $(B)/tests/lib_cxx_static.so
$(CXXPROGS): $(B)/tests/prog_hook_cxx.o
$(B)/tests/prog_hook_cxx_linked $(B)/tests/prog_hook_cxx_static: $(PROF_A)
$(B)/tests/prog_hook_cxx_linked $(B)/tests/prog_hook_cxx_static: LINK_FLAGS = -Wl,--export-dynamic-symbol=memkit_prof_attach
$(B)/tests/prog_hook_cxx_static $(B)/tests/lib_cxx_static.so: LDLIBS = -static-libstdc++
$(LIB_CXX): $(B)/tests/lib_cxx.o
$(LIB_CXX): LINK_FLAGS = -shared
$(CXXPROGS) $(LIB_CXX):
	$(say) LD $@
	$(Q)$(CXX) $(LDALL) -o $@ $(filter %.o,$^) $(LINK_FLAGS) $(filter %.a,$^) $(LDLIBS) -ldl $(WITH_PROF)

TEST_ENV = MEMKIT_BUILD='$(abspath $(B))' MEMKIT_SAN='$(SAN)' MEMKIT_ROOT='$(CURDIR)' CC='$(CC)' MEMKIT_GBENCH='$(HAVE_GBENCH)' MEMKIT_UNWIND_CCS='$(UNWIND_CCS)'

## test         every test, in at most 3 minutes; the last line is `N passed, N failed`
##              (TEST=test_pool runs one; also CC=clang, SAN=address,undefined, SAN=thread)
.PHONY: test
test: lib $(EXAMPLES) $(TESTS) $(PROGS) $(GBENCH_PROGS) $(CXXPROGS) $(UNWIND_PROGS) $(TEST_LIBS)
	$(Q)$(TEST_ENV) tests/run.sh $(if $(TEST),$(TEST:%=$(B)/tests/%),$(TESTS))

## test-tools   tests against real programs: servers under load, other mallocs, Prometheus, a browser
##              (make deps-tools; TEST=tools_mallocs runs one)
.PHONY: test-tools
test-tools: lib $(EXAMPLES) $(TOOLS) $(PROGS) $(CXXPROGS) $(TEST_LIBS)
	$(Q)$(TEST_ENV) TEST_TIMEOUT=600 tests/run.sh $(if $(TEST),$(TEST:%=$(B)/tests/%),$(TOOLS))

## soak         a million hostile requests to each of the services, some ten minutes (HOSTILE_REQUESTS=1000000
##              HOSTILE_SEED=; `make test` sends 25,000)
.PHONY: soak
soak: lib $(EXAMPLES) $(B)/tests/test_service_hostile
	$(Q)$(TEST_ENV) TEST_TIMEOUT=3600 HOSTILE_REQUESTS=$(or $(HOSTILE_REQUESTS),1000000) HOSTILE_SEED=$(HOSTILE_SEED) \
	    tests/run.sh $(B)/tests/test_service_hostile
	$(Q)grep -a 'hostile requests' $(B)/tests/test_service_hostile.log

## valgrind     the core's tests, and two of the profiler's, under valgrind, built to tell it what is handed out: any error fails,
##              and any block that is not freed, also one that can be reached (make deps-ci)
## helgrind     the core's tests with threads under helgrind: any race or wrong order of locks fails
##              (not test_fork: in a child helgrind goes on with the threads that are no more)
.PHONY: valgrind helgrind
VALGRIND_TESTS := $(addprefix $(B)/tests/test_,buf arena arena_marks arena_model pool pool_model pool_threads metrics stats lru) \
    $(addprefix $(B)/tests/test_lru_,bounds evict held index memory model refs resize threads way) $(MATRIX) \
    $(addprefix $(B)/tests/test_prof_,pprof symtab)
HELGRIND_TESTS := $(addprefix $(B)/tests/test_,pool takes pool_threads metrics lru_refs)
VALGRIND := valgrind -q --error-exitcode=9 --suppressions=tests/valgrind.supp
VALGRIND_ENV = $(TEST_ENV) MEMKIT_SLOW=1 MEMKIT_TEST_OPS=1500 TEST_TIMEOUT=600
ifeq ($(MEMKIT_TRACK),valgrind)
valgrind: $(VALGRIND_TESTS) $(B)/tests/test_fork $(B)/tests/test_takes $(CORE_SO)
	$(Q)$(VALGRIND_ENV) TEST_UNDER='$(VALGRIND) --leak-check=full --show-leak-kinds=all --errors-for-leak-kinds=all' \
	    tests/run.sh $(VALGRIND_TESTS)
	$(Q)$(VALGRIND_ENV) TEST_UNDER='$(VALGRIND) --fair-sched=yes' tests/run.sh $(B)/tests/test_fork $(B)/tests/test_takes # children end with all they have
helgrind: $(HELGRIND_TESTS) $(CORE_SO)
	$(Q)$(VALGRIND_ENV) TEST_UNDER='$(VALGRIND) --tool=helgrind --history-level=approx' tests/run.sh $(HELGRIND_TESTS)
else
valgrind helgrind:
	$(Q)$(MAKE) --no-print-directory MEMKIT_TRACK=valgrind $@
endif

## instructions  instructions of each hot path, counted by callgrind (make deps-ci)
.PHONY: instructions
instructions: $(B)/bench/instructions $(B)/bench/unwind $(B)/bench/empty_preload.so $(PROF_SO)
	$(Q)B=$(B) bench/instructions.sh
$(B)/bench/instructions: $(B)/bench/instructions.o $(CORE_A)
	$(say) LD $@
	$(LINK)
$(B)/bench/instructions: LDLIBS = -ldl
$(B)/bench/empty_preload.o: OBJFLAGS = -fPIC -Wno-missing-prototypes
$(B)/bench/empty_preload.so: $(B)/bench/empty_preload.o
	$(say) LD $@
	$(Q)$(CC) $(LDALL) -shared -o $@ $^ -ldl

# One stack of depth 20, by us and by others: nanoseconds, or N of one kind for callgrind.
HAVE_LIBUNWIND = $(shell printf '$(HASH)include <libunwind.h>\n' | $(CC) $(CPPFLAGS) -E - >/dev/null 2>&1 && echo y)
## bench-unwind  one stack of depth 20: ours, frame pointers, backtrace(), and libunwind where it is there
.PHONY: bench-unwind
bench-unwind: $(B)/bench/unwind
	$(Q)$(B)/bench/unwind
$(B)/bench/unwind.o: OBJFLAGS = -fno-omit-frame-pointer -Wno-frame-address
$(B)/bench/unwind: $(B)/bench/unwind.o $(UNWIND_OBJ)
	$(say) LD $@
	$(LINK)
$(B)/bench/unwind: LDLIBS = -ldl $(if $(HAVE_LIBUNWIND),-lunwind)

## ci           what CI runs: clean test, both compilers, the sanitizers, valgrind, short benches and compare
.PHONY: ci
ci:
	.ci/run

# ---- installation ----------------------------------------------------------------------------------------

HEADERS := $(sort $(wildcard include/memkit/*.h))
DEST_LIB := $(DESTDIR)$(LIBDIR)
DEST_INC := $(DESTDIR)$(INCLUDEDIR)/memkit
DEST_PC  := $(DESTDIR)$(PKGCONFIGDIR)
DEST_MAN := $(DESTDIR)$(MANDIR)
MAN_PAGES := $(sort $(wildcard docs/man/*.[1-9]))

## install      libraries, headers, man pages, .pc files (PREFIX=/usr/local DESTDIR= LIBDIR= INCLUDEDIR=)
.PHONY: install
install: $(LIBS)
	$(Q)install -d "$(DEST_LIB)" "$(DEST_INC)" "$(DEST_PC)"
	$(Q)install -m 644 $(HEADERS) "$(DEST_INC)"
	$(Q)for page in $(MAN_PAGES); do \
	    install -D -m 644 $$page "$(DEST_MAN)/man$${page##*.}/$${page##*/}" || exit 1; done
	$(Q)install -m 644 $(CORE_A) $(PROF_A) "$(DEST_LIB)"
	$(Q)install -m 755 $(CORE_SO) $(PROF_SO) $(if $(HAVE_LISTEN),$(LISTEN_SO)) "$(DEST_LIB)"
	$(Q)for name in memkit memkit-prof $(if $(HAVE_LISTEN),memkit-listen); do \
	    ln -sf lib$$name.so.$(VERSION) "$(DEST_LIB)/lib$$name.so.$(SOMAJOR)" && \
	    ln -sf lib$$name.so.$(SOMAJOR) "$(DEST_LIB)/lib$$name.so" || exit 1; done
	$(Q)for name in memkit memkit-prof; do \
	    sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
	        -e 's|@VERSION@|$(VERSION)|' src/$$name.pc.in > "$(DEST_PC)/$$name.pc" || exit 1; done

## uninstall    takes away what install put there (same variables)
.PHONY: uninstall
uninstall:
	$(Q)for header in $(notdir $(HEADERS)); do rm -f "$(DEST_INC)/$$header"; done
	$(Q)for page in $(MAN_PAGES); do rm -f "$(DEST_MAN)/man$${page##*.}/$${page##*/}"; done
	$(Q)for name in memkit memkit-prof memkit-listen; do \
	    for end in a so so.$(SOMAJOR) so.$(VERSION); do rm -f "$(DEST_LIB)/lib$$name.$$end"; done; \
	    rm -f "$(DEST_PC)/$$name.pc"; done
	$(Q)rmdir "$(DEST_INC)" 2>/dev/null || true

# ---- dependencies, cleaning, help ------------------------------------------------------------------------

## deps         installs what building and testing needs, through apt; asks nothing when all is there
.PHONY: deps
deps:
	$(Q)scripts/deps.sh $(if $(BENCH_GOALS),bench)

## deps-ci      and what CI needs beyond that: clang, valgrind and google-benchmark
.PHONY: deps-ci
deps-ci:
	$(Q)scripts/deps.sh ci

## deps-tools   and the programs that `make test-tools` talks to: Prometheus, Chromium, redis, nginx, other mallocs,
##              readers of profiles (some come from npm)
.PHONY: deps-tools
deps-tools:
	$(Q)scripts/deps.sh tools

## deps-bench   and google-benchmark, for `make bench`
.PHONY: deps-bench
deps-bench:
	$(Q)scripts/deps.sh bench

## clean        removes build/
.PHONY: clean
clean:
	$(Q)rm -rf build

## help         this list
.PHONY: help
help:
	@sed -n 's/^## \{0,1\}//p' $(firstword $(MAKEFILE_LIST))
	@echo; echo 'Also: V=1 shows the commands, CC=clang another compiler, CFLAGS= LDFLAGS= CPPFLAGS= as usual,'
	@echo 'WERROR= lets a warning of another compiler pass.'

-include $(shell find $(B) -name '*.d' 2>/dev/null)
