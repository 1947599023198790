//! How much each sample of a batch counts: statistical efficiency.
//!
//! Source: Qiao et al., OSDI 2021, section 3.1 (equations 3 to 7); the gain is that of AdaScale (Johnson et al., "AdaScale
//! SGD: A User-Friendly Algorithm for Distributed Training", ICML 2020, section 3).

/// Statistics of the gradient at the batch that a job began with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradientNoise {
    /// Squared norm of the expected gradient.
    pub squared_norm: f64,
    /// Variance of the gradient.
    pub variance: f64,
}

impl GradientNoise {
    /// Updates at the first batch that one update at a batch `scale` times as large is worth: between 1 and `scale`.
    pub fn gain(&self, scale: f64) -> f64 {
        let denominator = self.variance / scale + self.squared_norm;
        if denominator > 0.0 {
            (self.variance + self.squared_norm) / denominator
        } else {
            1.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::GradientNoise;

    #[test]
    fn noise_makes_large_batches_worth_their_samples_and_signal_does_not() {
        let (noisy, clear) = (
            GradientNoise {
                squared_norm: 0.0,
                variance: 2.0,
            },
            GradientNoise {
                squared_norm: 2.0,
                variance: 0.0,
            },
        );
        assert_eq!(noisy.gain(8.0), 8.0);
        assert_eq!(clear.gain(8.0), 1.0);
        let both = GradientNoise {
            squared_norm: 1.0,
            variance: 1.0,
        };
        assert_eq!(both.gain(1.0), 1.0);
        assert!((both.gain(4.0) - 1.6).abs() < 1e-12);
    }

    #[test]
    fn no_gradient_at_all_gains_nothing() {
        let none = GradientNoise {
            squared_norm: 0.0,
            variance: 0.0,
        };
        assert_eq!(none.gain(4.0), 1.0);
    }
}
