#include "core/kernels/blas_info.h"

#include <cblas.h>

namespace strata {

BlasInfo DescribeBlas() {
  const std::string config = openblas_get_config();  // "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ..."
  const size_t end = config.find(' ', config.find(' ') + 1);
  return {config.substr(0, end), openblas_get_corename(), openblas_get_num_threads()};
}

}  // namespace strata
