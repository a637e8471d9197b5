/* test_load.c - the load generator's parts: histogram, ids, reader of answers. What it does with a
 * server is in test_load_run.c.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../examples/service/load.h"
#include "../examples/service/load_http.h"

#define MS 1000000ull

/* ---- histogram ---- */

static void histogram_is_within_one_percent_at_every_magnitude(void **state)
{
    (void)state;
    static load_hist h;
    for (double v = 1; v < 2e12; v *= 1.07) {
        uint64_t ns = (uint64_t)v;
        load_hist_reset(&h);
        load_hist_record(&h, 0);
        load_hist_record(&h, ns);
        load_hist_record(&h, UINT64_MAX / 2); /* so that min and max do not give it away */
        double got = (double)load_hist_quantile(&h, 0.5);
        if (fabs(got - (double)ns) > 0.01 * (double)ns)
            fail_msg("%llu came back as %.0f", (unsigned long long)ns, got);
    }
}

static void histogram_quantiles_of_a_known_set(void **state)
{
    (void)state;
    static load_hist h, half;
    load_hist_reset(&h);
    load_hist_reset(&half);
    assert_int_equal(load_hist_quantile(&h, 0.5), 0);
    for (uint64_t i = 1; i <= 1000; i++)
        load_hist_record(i % 2 ? &h : &half, i * MS);
    load_hist_merge(&h, &half);
    assert_int_equal(h.count, 1000);
    static const struct {
        double q, ms;
    } want[] = {{0, 1}, {0.001, 1}, {0.5, 500}, {0.9, 900}, {0.99, 990}, {0.999, 999}, {1, 1000}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        double got = (double)load_hist_quantile(&h, want[i].q) / (double)MS;
        if (fabs(got - want[i].ms) > 0.005 * want[i].ms)
            fail_msg("q %g is %g ms, not %g", want[i].q, got, want[i].ms);
    }
    assert_int_equal(h.min, MS);
    assert_int_equal(h.max, 1000 * MS);
    assert_int_equal(load_hist_quantile(&h, 1), 1000 * MS);
}

/* 99 of 100: the rank must not slip to the 100th because 0.99 * 100 is a little over 99. */
static void histogram_rank_does_not_slip_by_rounding(void **state)
{
    (void)state;
    static load_hist h;
    load_hist_reset(&h);
    for (int i = 0; i < 99; i++)
        load_hist_record(&h, 100);
    load_hist_record(&h, 200);
    assert_int_equal(load_hist_quantile(&h, 0.99), 100);
    assert_int_equal(load_hist_quantile(&h, 0.995), 200);
}

/* ---- ids ---- */

static void ids_same_seed_same_sequence(void **state)
{
    (void)state;
    for (int kind = LOAD_UNIFORM; kind <= LOAD_ZIPF; kind++) {
        load_ids a, b, c;
        assert_int_equal(load_ids_init(&a, (load_ids_kind)kind, 1000000, 32, 0.99, 42), 0);
        assert_int_equal(load_ids_init(&b, (load_ids_kind)kind, 1000000, 32, 0.99, 42), 0);
        assert_int_equal(load_ids_init(&c, (load_ids_kind)kind, 1000000, 32, 0.99, 43), 0);
        unsigned other = 0;
        for (int i = 0; i < 10000; i++) {
            uint64_t x = load_ids_next(&a);
            assert_true(x < 1000000);
            assert_int_equal(x, load_ids_next(&b));
            other += x != load_ids_next(&c);
        }
        assert_true(other > 5000);
    }
}

static void ids_uniform_is_uniform(void **state)
{
    (void)state;
    enum { CELLS = 100, DRAWS = 1000000 };
    load_ids ids;
    unsigned count[CELLS] = {0};
    assert_int_equal(load_ids_init(&ids, LOAD_UNIFORM, CELLS, 2, 0, 7), 0);
    for (int i = 0; i < DRAWS; i++)
        count[load_ids_next(&ids)]++;
    double chi2 = 0, want = (double)DRAWS / CELLS;
    for (int i = 0; i < CELLS; i++)
        chi2 += (count[i] - want) * (count[i] - want) / want;
    /* 99 degrees of freedom: 99 +- 14; 170 is beyond one in 10,000. Too good is wrong as well. */
    if (chi2 > 170 || chi2 < 50)
        fail_msg("chi squared %g", chi2);
}

/* Against exact probabilities, cell by cell for the popular ones and by tens for the others. */
static void check_zipf(uint64_t n, double theta, uint64_t seed)
{
    enum { HEAD = 50, CELLS = 64, DRAWS = 2000000 };
    static double want[CELLS];
    static unsigned count[CELLS];
    memset(want, 0, sizeof want);
    memset(count, 0, sizeof count);
    double zeta = 0;
    for (uint64_t k = 1; k <= n; k++)
        zeta += pow((double)k, -theta);
    unsigned top = 0;
    uint64_t bound[CELLS];
    for (unsigned c = 0; c < CELLS && (c == 0 || bound[c - 1] < n); c++) {
        uint64_t b = c < HEAD ? c + 1 : bound[c - 1] * 2;
        bound[c] = b < n && c < CELLS - 1 ? b : n;
        for (uint64_t k = c == 0 ? 1 : bound[c - 1] + 1; k <= bound[c]; k++)
            want[c] += DRAWS * pow((double)k, -theta) / zeta;
        top = c + 1;
    }
    load_ids ids;
    assert_int_equal(load_ids_init(&ids, LOAD_ZIPF, n, 10, theta, seed), 0);
    for (int i = 0; i < DRAWS; i++) {
        uint64_t k = load_ids_next(&ids) + 1;
        assert_true(k >= 1 && k <= n);
        unsigned c = 0;
        while (k > bound[c])
            c++;
        count[c]++;
    }
    double chi2 = 0;
    for (unsigned c = 0; c < top; c++)
        chi2 += (count[c] - want[c]) * (count[c] - want[c]) / want[c];
    double dof = top - 1;
    if (chi2 > dof + 4.5 * sqrt(2 * dof) + 5)
        fail_msg("n %llu theta %g: chi squared %g with %g degrees of freedom",
                 (unsigned long long)n, theta, chi2, dof);
}

static void ids_zipf_has_the_exact_probabilities(void **state)
{
    (void)state;
    check_zipf(1000000, 0.99, 1);
    check_zipf(1000, 0.99, 2);
    check_zipf(100000, 1, 3); /* the limit in which the formulas divide by zero */
    check_zipf(10, 2.5, 4);
}

static void ids_text_has_its_length_and_differs_by_number(void **state)
{
    (void)state;
    static const size_t length[] = {7, 19, 20, 21, 32, 1024, 15000};
    for (size_t l = 0; l < sizeof length / sizeof *length; l++) {
        load_ids ids;
        static char a[15001], b[15001];
        assert_int_equal(load_ids_init(&ids, LOAD_UNIFORM, 10000000, length[l], 0, 1), 0);
        memset(a, 'x', sizeof a);
        memset(b, 'x', sizeof b);
        load_ids_write(&ids, 1234567, a);
        load_ids_write(&ids, 1234568, b);
        assert_memory_not_equal(a, b, length[l]);
        assert_int_equal(strspn(a, "0123456789-"), length[l]);
        if (length[l] < sizeof a)
            assert_int_equal(a[length[l]], 'x'); /* nothing behind it */
        load_ids_write(&ids, 1234567, b);
        assert_memory_equal(a, b, length[l]);
    }
    load_ids ids;
    char text[33] = "";
    assert_int_equal(load_ids_init(&ids, LOAD_UNIFORM, 1000000, 32, 0, 1), 0);
    load_ids_write(&ids, 42, text);
    assert_string_equal(text, "0000000000000000042-000000000000");
}

static void ids_refuse_what_cannot_be(void **state)
{
    (void)state;
    load_ids ids;
    assert_int_equal(load_ids_init(&ids, LOAD_UNIFORM, 0, 32, 0, 1), -1);
    assert_int_equal(load_ids_init(&ids, LOAD_UNIFORM, 1000001, 6, 0, 1),
                     -1); /* 1000000: 7 digits */
    assert_int_equal(load_ids_init(&ids, LOAD_UNIFORM, 1000000, 6, 0, 1), 0);
    assert_int_equal(load_ids_init(&ids, LOAD_UNIFORM, 10, LOAD_ID_BYTES_MAX + 1, 0, 1), -1);
    assert_int_equal(load_ids_init(&ids, LOAD_ZIPF, 10, 32, 0, 1), -1);
    assert_int_equal(load_ids_init(&ids, LOAD_ZIPF, 10, 32, nan(""), 1), -1);
    assert_int_equal(errno, EINVAL);
}

/* ---- answer reader ---- */

typedef struct {
    char text[256];
    size_t len;
} collected;

static void collect(void *arg, const char *data, size_t n)
{
    collected *c = arg;
    assert_true(c->len + n < sizeof c->text);
    memcpy(c->text + c->len, data, n);
    c->len += n;
}

/* Feeds in pieces of `step` bytes; returns how many bytes were used. */
static size_t feed(load_http *p, collected *c, const char *text, size_t step)
{
    memset(p, 0, sizeof *p);
    memset(c, 0, sizeof *c);
    p->body = collect;
    p->arg = c;
    load_http_reset(p);
    size_t n = strlen(text), at = 0;
    while (at < n && p->state < LOAD_HTTP_DONE) {
        size_t part = n - at < step ? n - at : step;
        at += load_http_feed(p, text + at, part);
    }
    return at;
}

static void http_reads_answers_in_any_pieces(void **state)
{
    (void)state;
    static const struct {
        const char *text, *body;
        int status;
        bool close;
    } good[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", 200, false},
        {"HTTP/1.1 200 OK\ncontent-length:5 \nConnection: Close\n\nhello", "hello", 200, true},
        {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "", 200, false},
        {"HTTP/1.0 404 Not Found\r\nContent-Length: 2\r\n\r\nno", "no", 404, true},
        {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", "ok", 200,
         false},
        {"HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n", "", 204, false},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", "x", 200,
         false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n10;a=b\r\n, wide "
         "world....\r\n0\r\nTrailer: y\r\n\r\n",
         "hello, wide world....", 200, false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\nContent-Length: 99\r\n\r\n"
         "1\r\nz\r\n0\r\n\r\n",
         "z", 200, false},
        {"HTTP/1.1 200 OK\r\nX-Long: "
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nContent-Length: 1\r\n\r\nq",
         "q", 200, false},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        for (size_t step = 1; step < 200; step += step < 8 ? 1 : 37) {
            load_http p;
            collected c;
            size_t used = feed(&p, &c, good[i].text, step);
            if (p.state != LOAD_HTTP_DONE || used != strlen(good[i].text))
                fail_msg("answer %zu in steps of %zu: state %d after %zu bytes", i, step, p.state,
                         used);
            assert_string_equal(c.text, good[i].body);
            assert_int_equal(p.body_len, strlen(good[i].body));
            assert_int_equal(p.status, good[i].status);
            assert_int_equal(p.close, good[i].close);
        }
    }
}

static void http_stops_at_the_end_of_an_answer(void **state)
{
    (void)state;
    load_http p;
    collected c;
    const char *two = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n";
    assert_int_equal(feed(&p, &c, two, 1000), strlen(two) - strlen("HTTP/1.1 200 OK\r\n"));
    assert_int_equal(p.state, LOAD_HTTP_DONE);
}

static void http_refuses_what_is_no_answer(void **state)
{
    (void)state;
    static const char *bad[] = {
        "GET / HTTP/1.1\r\n",
        "HTTP/2.0 200 OK\r\n",
        "HTTP/1.1 2x0 OK\r\n",
        "HTTP/1.1 2000 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551617\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        for (size_t step = 1; step < 100; step += 33) {
            load_http p;
            collected c;
            feed(&p, &c, bad[i], step);
            if (p.state != LOAD_HTTP_ERROR)
                fail_msg("taken for good in steps of %zu: %s", step, bad[i]);
        }
    }
    load_http p = {0};
    load_http_reset(&p);
    load_http_feed(&p, "HTTP/1.1 200 OK\r\n", 17);
    for (int i = 0; i < 10000 && p.state != LOAD_HTTP_ERROR; i++)
        load_http_feed(&p, "A: aaaaaaaa\r\n", 13);
    assert_int_equal(p.state, LOAD_HTTP_ERROR); /* headers without end */
}

static void http_body_until_the_end_of_the_connection(void **state)
{
    (void)state;
    load_http p;
    collected c;
    feed(&p, &c, "HTTP/1.1 200 OK\r\n\r\nall of it", 3);
    assert_int_equal(p.state, LOAD_HTTP_BODY_EOF);
    assert_true(p.close);
    assert_true(load_http_eof(&p));
    assert_string_equal(c.text, "all of it");
    feed(&p, &c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", 3);
    assert_false(load_http_eof(&p));
}

static void http_skips_only_what_is_body(void **state)
{
    (void)state;
    load_http p = {0};
    load_http_reset(&p);
    const char *head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
    assert_int_equal(load_http_skippable(&p), 0);
    load_http_feed(&p, head, strlen(head));
    assert_int_equal(load_http_skippable(&p), 1000);
    load_http_skip(&p, 999);
    assert_int_equal(p.state, LOAD_HTTP_BODY);
    load_http_skip(&p, 1);
    assert_int_equal(p.state, LOAD_HTTP_DONE);
    assert_int_equal(p.body_len, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(histogram_is_within_one_percent_at_every_magnitude),
        cmocka_unit_test(histogram_quantiles_of_a_known_set),
        cmocka_unit_test(histogram_rank_does_not_slip_by_rounding),
        cmocka_unit_test(ids_same_seed_same_sequence),
        cmocka_unit_test(ids_uniform_is_uniform),
        cmocka_unit_test(ids_zipf_has_the_exact_probabilities),
        cmocka_unit_test(ids_text_has_its_length_and_differs_by_number),
        cmocka_unit_test(ids_refuse_what_cannot_be),
        cmocka_unit_test(http_reads_answers_in_any_pieces),
        cmocka_unit_test(http_stops_at_the_end_of_an_answer),
        cmocka_unit_test(http_refuses_what_is_no_answer),
        cmocka_unit_test(http_body_until_the_end_of_the_connection),
        cmocka_unit_test(http_skips_only_what_is_body),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
