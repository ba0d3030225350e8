"""Every tolerance of the suite, with its reason."""

# Caffe, recorded through pycaffe: of the largest value, and the least that is asked for.
RECORDED, RECORDED_LEAST = 1e-5, 3e-6
# Small nets: Caffe is bit-identical for 1 and 2 BLAS threads; torch sums in another order.
# Measured: 1.7e-6 of a blob's largest value at most.
LAYER = 5e-6
# Random nets through pycaffe, relative to the array's largest value, and the least absolute
# difference that counts (gradients that cancel to almost nothing): measured 5e-6.
RANDOM = 1e-5
RANDOM_ABSOLUTE = 3e-6
# Full-size nets: Caffe itself moves by 1.6e-5 between 1 and 2 BLAS threads on outputs of standard
# deviation 2 to 5; this toolkit promises 1e-4 absolute.
DEPLOY = 1e-4
# Small pose machines, relative to the blob: measured 4e-6.
TINY = 2e-5
# Real public models, relative to the blob: measured 3.2e-6.
MODEL = 1e-5
# Solver runs: weights after k steps, relative. A training that amplifies rounding (nesterov: Caffe
# is 2.3e-5 from the float64 run after 20 steps) is judged by its distance to the float64 run
# instead: both programs' rounding errors are amplified alike, which of them ends nearer is chance,
# so a factor of 4 on Caffe's distance. The float64 run must be near Caffe itself.
SOLVER = 1e-5
AMPLIFIED = 4
ROUNDED_TWICE = 2e-4
# Printed with 6 digits (5e-6), by weights that may differ by 1e-5.
PRINTED = 1.5e-5
# Whole trainings with data layer: Caffe's final weights move by 1.5e-8 between 1 and 2 threads;
# asked for is 1e-5.
TRAINING = 1e-5
# Centre maps and labels: float32 rounding of exp().
LABEL = 2e-7
# Half-precision copies of centre maps.
HALF = 2.5e-4
