/* The micro-kernels: the only code that knows vector registers.
 *
 * Compiled once for each element type and instruction set, with
 *   CONVEXT_REAL          float or double
 *   CONVEXT_LANES         elements in a vector register
 *   CONVEXT_REGISTERS     number of vector registers
 *   CONVEXT_TABLE         name of the table that this compilation defines
 *
 * contracts.h lists them; they are defined in the other headers. */
#include "microkernel.h"

#include "depthwise.h"
#include "fft.h"
#include "squares.h"
#include "winograd.h"
#include "winograd_lines.h"
#include "winograd_gradient.h"
#include "rows.h"
#include "activation.h"
#include "layout.h"
#include "products.h"

const convext_microkernels CONVEXT_TABLE = {
    .lanes = LANES,
    .max_kernels = MAX_KERNELS,
    .correlate_vectors = {FOR_KERNELS(VECTORS_ENTRY)},
    .max_rows = MAX_ROWS,
    .max_dot_taps = MAX_DOT_TAPS,
    .max_slide_rows = CONVEXT_MAX_SLIDE_ROWS,
    .winograd_width = WIDTH,
    .activations = activation_names,
    .correlate = {FOR_KERNELS(CORRELATE_ENTRY)},
    .slide = {FOR_SLIDE_ROWS(SLIDE_ENTRY)},
    .dot = {FOR_DOTS(DOT_ENTRY)},
#define MICROKERNEL(result, name, parameters) .name = name,
#define MICROKERNELS(result, name, sizes, parameters) /* above, an entry for each size */
#include "contracts.h"
};
