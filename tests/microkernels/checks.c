/* A check of each micro-kernel, for elements of one type, CHECKED_REAL. */
#include "check_activations.h"
#include "check_fft.h"
#include "check_layout.h"
#include "check_products.h"
#include "check_squares.h"
#include "check_winograd.h"

#include "suite.h"

/* One that has no check does not compile. */
static const named_check all[] = {
#define MICROKERNEL(result, name, parameters) {#name, check_##name},
#define MICROKERNELS(result, name, sizes, parameters) {#name, check_##name},
#include "contracts.h"
};

const suite CHECKED_SUITE = {all, sizeof all / sizeof *all};
