/* test_prof_elf_fuzz.c - files that lie: cut short anywhere, bits turned, hostile figures. Nothing
 * may fault, loop, or name what it cannot know; sanitizers see reads out of bounds. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sys/mman.h>
#include <time.h>

#include "sanitized.h"
#include "test_prof_symbols.h"

static const char library[] =
    "#include <stdlib.h>\n#include <string.h>\n"
    "static __attribute__((noinline)) char *inner(const char *s) { __asm__ volatile(\"\"); return "
    "strdup(s); }\n"
    "char *outer(const char *s) { char *volatile p = malloc(3); free(p); return inner(s); }\n"
    "char *other(const char *) __attribute__((weak, alias(\"outer\")));\n"
    "__asm__(\".text\\n.globl bare\\nbare:\\nnop\\nnop\\n\");\n";

static unsigned char whole[1 << 20], image[1 << 20];
static size_t whole_size;
static uint64_t addresses[512];
static size_t n_addresses;

static uint64_t seed = 20240601;
static uint64_t draw(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

/* The first bytes of the image in front of a page that may not be touched. */
static const unsigned char *guarded(size_t size)
{
    static unsigned char *pages;
    if (pages == NULL) {
        pages = mmap(NULL, sizeof image + 65536, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_true(pages != MAP_FAILED);
        assert_int_equal(mprotect(pages + sizeof image, 65536, PROT_NONE), 0);
    }
    return memcpy(pages + sizeof image - size, image, size);
}

/* Names every address of the image's code; how many got a name. */
static size_t name_all(size_t size)
{
    memkit__scratch s = {0};
    memkit__elf e = {.fd = -1};
    static memkit__pc pcs[512];
    size_t named = 0;
    if (memkit__elf_open_memory(&e, guarded(size), size, &s) == 0) {
        uint8_t id[MEMKIT__BUILD_ID_MAX];
        for (size_t i = 0; i < n_addresses; i++)
            pcs[i] = (memkit__pc){.at = addresses[i]};
        assert_true(memkit__elf_build_id(&e, id) <= sizeof id);
        assert_int_equal(memkit__symtab_name(&e, pcs, n_addresses, &s), 0);
        assert_int_equal(memkit__plt_name(&e, pcs, n_addresses, &s), 0);
        for (size_t i = 0; i < n_addresses; i++)
            if (pcs[i].name != NULL)
                named += strlen(pcs[i].name) > 0; /* reads all of it */
        memkit__elf_close(&e);
    }
    memkit__scratch_free(&s);
    return named;
}

static int make_library(void **state)
{
    if (make_test_dir(state) != 0)
        return -1;
    const char *path = compile("fuzz.so", "-shared -fPIC -Wl,-z,lazy", library);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, whole, sizeof whole) : -1;
    if (n <= 0)
        return -1;
    close(fd);
    whole_size = (size_t)n;
    /* Each third byte of .plt and .text, or whatever is marked as code. */
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)(const void *)whole;
    for (unsigned i = 1; i < head->e_shnum; i++) {
        Elf64_Shdr sh;
        memcpy(&sh, whole + head->e_shoff + i * sizeof sh, sizeof sh);
        if ((sh.sh_flags & SHF_EXECINSTR) == 0)
            continue;
        for (uint64_t at = 0; at < sh.sh_size && n_addresses < 512; at += 3)
            addresses[n_addresses++] = sh.sh_addr + at;
    }
    memcpy(image, whole, whole_size);
    return name_all(whole_size) > 10 ? 0 : -1;
}

static void a_file_cut_short_anywhere_is_survived(void **state)
{
    (void)state;
    size_t step = SANITIZED ? 61 : 17;
    memcpy(image, whole, whole_size);
    for (size_t size = 0; size < whole_size; size += step)
        name_all(size);
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)(const void *)whole;
    for (unsigned i = 0; i < head->e_shnum; i++) {
        Elf64_Shdr sh;
        memcpy(&sh, whole + head->e_shoff + i * sizeof sh, sizeof sh);
        for (int d = -1; d <= 1; d++) {
            name_all((size_t)(sh.sh_offset + (uint64_t)d) % whole_size);
            name_all((size_t)(sh.sh_offset + sh.sh_size + (uint64_t)d) % whole_size);
        }
    }
}

static void turned_bits_are_survived(void **state)
{
    (void)state;
    int rounds = SANITIZED ? 3000 : 20000;
    for (int i = 0; i < rounds; i++) {
        memcpy(image, whole, whole_size);
        uint64_t n = 1 + draw(20);
        for (uint64_t k = 0; k < n; k++)
            image[draw(whole_size)] ^= (unsigned char)(1u << draw(8));
        name_all(whole_size);
    }
}

/* The parts that figures come from: headers, and what they lead to. */
static void hostile_figures_are_survived(void **state)
{
    (void)state;
    static const uint64_t figures[] = {0,
                                       1,
                                       23,
                                       24,
                                       0x7f,
                                       0xff,
                                       0xffff,
                                       0x7fffffff,
                                       0xfffffff8,
                                       0xffffffff,
                                       UINT64_C(0x7fffffffffffffff),
                                       UINT64_C(0x8000000000000000),
                                       UINT64_C(0xfffffffffffffff0),
                                       UINT64_MAX};
    enum { N = sizeof figures / sizeof figures[0] };
    Elf64_Ehdr head;
    memcpy(&head, whole, sizeof head);
    /* Fields of 2, 4 and 8 bytes at each place of the header, of section and program headers. */
    struct {
        size_t at, size;
    } parts[] = {{0, sizeof head},
                 {head.e_phoff, head.e_phnum * sizeof(Elf64_Phdr)},
                 {head.e_shoff, head.e_shnum * sizeof(Elf64_Shdr)}};
    for (int part = 0; part < 3; part++) {
        for (size_t at = 0; at + 8 <= parts[part].size; at += part == 0 ? 2 : SANITIZED ? 12 : 4) {
            for (int k = 0; k < N; k++) {
                memcpy(image, whole, whole_size);
                memcpy(image + parts[part].at + at, &figures[k],
                       part == 0 ? 2u << draw(3) : 4u << draw(2));
                name_all(whole_size);
            }
        }
    }
    /* Words of symbols and relocations. */
    for (int i = 0; i < (SANITIZED ? 2000 : 10000); i++) {
        memcpy(image, whole, whole_size);
        for (int k = 0; k < 30; k++) {
            Elf64_Shdr sh;
            memcpy(&sh, whole + head.e_shoff + (1 + draw(head.e_shnum - 1u)) * sizeof sh,
                   sizeof sh);
            if (sh.sh_type != SHT_NOBITS && sh.sh_size >= 8)
                memcpy(image + sh.sh_offset + draw(sh.sh_size / 4 - 1) * 4, &figures[draw(N)],
                       4u << draw(2));
        }
        name_all(whole_size);
    }
}

/* A table in which everything covers everything ends, and soon. Counted by what it costs at most:
 * the bound is in the code; here it has to come back at all (tests/run.sh ends what hangs). */
static void a_table_that_asks_for_endless_work_is_left(void **state)
{
    (void)state;
    enum { SYMBOLS = 200000, PCS = 4000 };
    const size_t size = 4096 + SYMBOLS * sizeof(Elf64_Sym);
    unsigned char *file = calloc(1, size);
    memkit__pc *pcs = calloc(PCS, sizeof *pcs);
    assert_non_null(file);
    assert_non_null(pcs);
    Elf64_Ehdr head = {.e_shoff = 64, .e_shentsize = sizeof(Elf64_Shdr), .e_shnum = 4};
    memcpy(head.e_ident, whole, EI_NIDENT);
    Elf64_Shdr sections[4] = {
        {0},
        {.sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC | SHF_EXECINSTR, .sh_size = 1 << 20},
        {.sh_type = SHT_SYMTAB,
         .sh_offset = 4096,
         .sh_size = SYMBOLS * sizeof(Elf64_Sym),
         .sh_entsize = sizeof(Elf64_Sym),
         .sh_link = 3},
        {.sh_type = SHT_STRTAB, .sh_offset = 1024, .sh_size = 3000}};
    memcpy(file, &head, sizeof head);
    memcpy(file + 64, sections, sizeof sections);
    memset(file + 1024, 'n', 2999);
    for (uint32_t i = 1; i < SYMBOLS; i++) {
        Elf64_Sym sym = {.st_name = 1 + i % 2990,
                         .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC),
                         .st_shndx = 1,
                         .st_size = 1 << 20};
        memcpy(file + 4096 + i * sizeof sym, &sym, sizeof sym);
    }
    for (uint32_t i = 0; i < PCS; i++)
        pcs[i].at = i * 16;
    memkit__scratch s = {0};
    memkit__elf e = {.fd = -1};
    struct timespec a, b;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    assert_int_equal(memkit__elf_open_memory(&e, file, size, &s), 0);
    assert_int_equal(memkit__symtab_name(&e, pcs, PCS, &s), 0);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    print_message("%.2f s\n",
                  (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec));
    assert_non_null(pcs[PCS / 2].name);
    memkit__elf_close(&e);
    memkit__scratch_free(&s);
    free(pcs);
    free(file);
}

static void a_file_that_shrinks_while_it_is_read_is_survived(void **state)
{
    (void)state;
    const char *path = in_dir("shrinks.so");
    write_file(path, whole, whole_size);
    for (size_t size = whole_size; size > 100; size = size * 4 / 5) {
        memkit__scratch s = {0};
        memkit__elf e = {.fd = -1};
        memkit__pc pcs[512];
        for (size_t i = 0; i < n_addresses; i++)
            pcs[i] = (memkit__pc){.at = addresses[i]};
        write_file(path, whole, whole_size);
        assert_int_equal(memkit__elf_open(&e, path, &s), 0);
        assert_int_equal(truncate(path, (off_t)size), 0);
        assert_int_equal(memkit__symtab_name(&e, pcs, n_addresses, &s), 0);
        memkit__elf_close(&e);
        memkit__scratch_free(&s);
    }
}

static void what_is_no_elf_file_is_refused(void **state)
{
    (void)state;
    memkit__scratch s = {0};
    memkit__elf e = {.fd = -1};
    write_file(in_dir("text"), "hello", 5);
    assert_int_equal(memkit__elf_open(&e, in_dir("text"), &s), -1);
    write_file(in_dir("empty"), "", 0);
    assert_int_equal(memkit__elf_open(&e, in_dir("empty"), &s), -1);
    assert_int_equal(memkit__elf_open(&e, test_dir, &s), -1);
    assert_int_equal(memkit__elf_open(&e, "/dev/zero", &s), -1);
    assert_int_equal(memkit__elf_open(&e, in_dir("none"), &s), -1);
    /* 32-bit, and the other byte order. */
    for (int i = EI_CLASS; i <= EI_DATA; i++) {
        memcpy(image, whole, whole_size);
        image[i] ^= 3;
        assert_int_equal(memkit__elf_open_memory(&e, image, whole_size, &s), -1);
    }
    assert_int_equal(e.fd, -1);
    memkit__scratch_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_cut_short_anywhere_is_survived),
        cmocka_unit_test(turned_bits_are_survived),
        cmocka_unit_test(hostile_figures_are_survived),
        cmocka_unit_test(a_table_that_asks_for_endless_work_is_left),
        cmocka_unit_test(a_file_that_shrinks_while_it_is_read_is_survived),
        cmocka_unit_test(what_is_no_elf_file_is_refused),
    };
    return cmocka_run_group_tests(tests, make_library, remove_test_dir);
}
