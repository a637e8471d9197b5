/* sanitized.h - SANITIZED: built with a sanitizer that brings a malloc of its own, so that none of
 * ours can be in front; UNDER_TSAN, UNDER_ASAN: with the thread, the address sanitizer.
 */
#ifndef MEMKIT_TESTS_SANITIZED_H
#define MEMKIT_TESTS_SANITIZED_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* TSan takes its own state of a thread apart before the last round of key destructors. */
#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif
#ifndef UNDER_TSAN
#define UNDER_TSAN 0
#endif

#define UNDER_ASAN (SANITIZED && !UNDER_TSAN)

#endif
