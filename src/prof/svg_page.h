/* svg_page.h - what is the same in every flame graph: its style and its script. */
#ifndef MEMKIT_PROF_SVG_PAGE_H
#define MEMKIT_PROF_SVG_PAGE_H

/* Measures that the writer and the script share, in pixels. */
#define MEMKIT__SVG_WIDTH 1200
#define MEMKIT__SVG_ROW   16  /* of which 15 are the frame */
#define MEMKIT__SVG_TOP   112 /* above the frames */
#define MEMKIT__SVG_BELOW 24
#define MEMKIT__SVG_CHAR  725 /* hundredths: width of a character, as long as no script measures */

extern const char memkit__svg_style[] __attribute__((visibility("hidden")));
/* In parts, since a compiler need not take one literal as long; ended by NULL. */
extern const char *const memkit__svg_script[] __attribute__((visibility("hidden")));

#endif
