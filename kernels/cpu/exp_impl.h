// The exponential function over the vectors of vec_<isa>.h. Include after one.
#ifndef THERMOCLINE_KERNELS_CPU_EXP_IMPL_H_
#define THERMOCLINE_KERNELS_CPU_EXP_IMPL_H_

namespace thermocline {
namespace {

// exp(x) for x <= 0 or moderate: 2^n * p(r), r in [-ln2/2, ln2/2], Taylor to r^7; about 2 ulp.
// NaN gives NaN: Max and Min return their second operand when either is NaN. What lies below -87,
// infinity included, gives exp(-87).
inline F32 Exp(F32 x) {
  x = F32::Max(F32::Set(-87.0f), x);
  const F32 n = F32::Round(F32::Mul(x, F32::Set(1.44269504f)));
  F32 r = F32::Fma(n, F32::Set(-0.693359375f), x);
  r = F32::Fma(n, F32::Set(2.12194440e-4f), r);
  F32 p = F32::Set(1.0f / 5040.0f);
  p = F32::Fma(p, r, F32::Set(1.0f / 720.0f));
  p = F32::Fma(p, r, F32::Set(1.0f / 120.0f));
  p = F32::Fma(p, r, F32::Set(1.0f / 24.0f));
  p = F32::Fma(p, r, F32::Set(1.0f / 6.0f));
  p = F32::Fma(p, r, F32::Set(0.5f));
  p = F32::Fma(p, r, F32::Set(1.0f));
  p = F32::Fma(p, r, F32::Set(1.0f));
  return F32::ScaleByPowerOf2(p, n);
}

}  // namespace
}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_EXP_IMPL_H_
