//! Functions of real numbers that give the same bits on every machine: only the four operations and roots, which IEEE
//! 754 defines exactly.

use crate::dice::Dice;

/// The natural logarithm of 2.
const LN_2: f64 = std::f64::consts::LN_2;

/// Square root.
pub(super) fn sqrt(x: f64) -> f64 {
    x.sqrt()
}

/// e to the power of `x`, for what durations need: beyond 700 it stays at e^700.
pub(super) fn exp(x: f64) -> f64 {
    let x = x.clamp(-700.0, 700.0);
    let whole = (x / LN_2).round();
    let rest = x - whole * LN_2;
    let (mut sum, mut term) = (1.0, 1.0);
    for n in 1..=20 {
        term *= rest / f64::from(n);
        sum += term;
    }
    let step = if whole < 0.0 { 0.5 } else { 2.0 };
    for _ in 0..whole.abs() as u32 {
        sum *= step;
    }
    sum
}

/// Natural logarithm of a number above 0.
pub(super) fn ln(x: f64) -> f64 {
    let (mut x, mut halvings) = (x.max(f64::MIN_POSITIVE), 0.0);
    while x > 1.5 {
        x *= 0.5;
        halvings += 1.0;
    }
    while x < 0.75 {
        x *= 2.0;
        halvings -= 1.0;
    }
    // ln x = 2 artanh((x - 1) / (x + 1))
    let ratio = (x - 1.0) / (x + 1.0);
    let square = ratio * ratio;
    let (mut sum, mut power) = (0.0, ratio);
    for n in 0..20 {
        sum += power / f64::from(2 * n + 1);
        power *= square;
    }
    2.0 * sum + halvings * LN_2
}

/// The share of a normal distribution below `x` (Abramowitz and Stegun, 26.2.17; within 1e-7).
pub(super) fn normal_below(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let factors = [
        0.319_381_530,
        -0.356_563_782,
        1.781_477_937,
        -1.821_255_978,
        1.330_274_429,
    ];
    let polynomial = factors
        .iter()
        .rev()
        .fold(0.0, |sum, factor| (sum + factor) * t);
    let density = exp(-0.5 * x * x) / sqrt(2.0 * std::f64::consts::PI);
    let above = density * polynomial;
    if x < 0.0 { above } else { 1.0 - above }
}

/// A number above 0 and below 1.
pub(super) fn unit(dice: &mut Dice) -> f64 {
    ((dice.bits() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

/// Exponential with mean 1.
pub(super) fn exponential(dice: &mut Dice) -> f64 {
    -ln(unit(dice))
}

/// Normal with mean 0 and deviation 1 (Marsaglia's polar method).
pub(super) fn normal(dice: &mut Dice) -> f64 {
    loop {
        let (x, y) = (2.0 * unit(dice) - 1.0, 2.0 * unit(dice) - 1.0);
        let square = x * x + y * y;
        if square > 0.0 && square < 1.0 {
            return x * sqrt(-2.0 * ln(square) / square);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_agree_with_those_of_the_library() {
        for x in [-20.0, -1.0, -0.1, 0.0, 0.3, 1.0, 2.5, 14.0, 30.0] {
            assert!((exp(x) / f64::exp(x) - 1.0).abs() < 1e-13, "exp {x}");
        }
        for x in [1e-9, 0.2, 0.75, 1.0, 1.5, 7.0, 1e12] {
            assert!(
                (ln(x) - f64::ln(x)).abs() < 1e-13 * f64::ln(x).abs().max(1.0),
                "ln {x}"
            );
        }
        for (x, wanted) in [(0.0, 0.5), (1.96, 0.975_002_1), (-1.0, 0.158_655_25)] {
            assert!((normal_below(x) - wanted).abs() < 1e-6, "{x}");
        }
    }

    #[test]
    fn drawn_numbers_have_their_mean_and_deviation() {
        let mut dice = Dice::new(11, 3);
        let drawn: Vec<f64> = (0..50_000).map(|_| normal(&mut dice)).collect();
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let square = drawn.iter().map(|x| x * x).sum::<f64>() / drawn.len() as f64;
        assert!(
            mean.abs() < 0.02 && (square - 1.0).abs() < 0.03,
            "{mean} {square}"
        );
        let mean = (0..50_000).map(|_| exponential(&mut dice)).sum::<f64>() / 50_000.0;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
    }
}
