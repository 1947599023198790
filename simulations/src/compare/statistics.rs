//! Means with what is known of their uncertainty.

/// Two-sided 95 % quantiles of Student's t by degrees of freedom, from 1; the normal one is used beyond.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];
/// The quantile of the normal distribution.
const NORMAL: f64 = 1.960;

/// A mean with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Half the width of the interval; none with fewer than two values.
    pub plus_minus: Option<f64>,
}

impl Mean {
    /// Of these values; none without any. Values are taken for independent and roughly normal.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        if values.is_empty() {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count;
        let freedom = values.len() - 1;
        if freedom == 0 {
            let plus_minus = None;
            return Some(Self { mean, plus_minus });
        }
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let error = (squares / freedom as f64 / count).sqrt();
        let quantile = STUDENT.get(freedom - 1).copied().unwrap_or(NORMAL);
        Some(Self {
            mean,
            plus_minus: Some(quantile * error),
        })
    }

    /// With so many decimals; the interval is left out where all values are the same.
    pub fn text(&self, decimals: usize) -> String {
        match self.plus_minus {
            Some(plus_minus) if plus_minus > 0.0 => {
                format!("{:.decimals$} ± {plus_minus:.decimals$}", self.mean)
            }
            _ => format!("{:.decimals$}", self.mean),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Mean;

    #[test]
    fn the_interval_is_students() {
        let mean = Mean::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).expect("there are values");
        assert_eq!(mean.mean, 3.0);
        // sd 1.5811, standard error 0.70711, t(4) 2.776
        assert!((mean.plus_minus.expect("five values") - 1.9629).abs() < 1e-3);
        assert_eq!(Mean::of(&[]), None);
        assert_eq!(Mean::of(&[7.0]).map(|m| m.text(1)), Some("7.0".into()));
        assert_eq!(Mean::of(&[7.0, 7.0]).map(|m| m.text(1)), Some("7.0".into()));
    }
}
