//! Median and quartiles: what a handful of noisy ratios can honestly be summed up as.

use std::fmt;

/// Of at least one value; each interpolated between its two neighbours.
#[derive(Debug, PartialEq)]
pub(super) struct Quartiles {
    lower: f64,
    median: f64,
    upper: f64,
}

impl Quartiles {
    pub(super) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self {
            lower: quarter(&sorted, 1),
            median: quarter(&sorted, 2),
            upper: quarter(&sorted, 3),
        }
    }
}

/// The value `quarters` quarters of the way from the least to the greatest.
fn quarter(sorted: &[f64], quarters: usize) -> f64 {
    let steps = sorted.len().saturating_sub(1) * quarters;
    let (below, rest) = (steps / 4, steps % 4);
    let low = sorted.get(below).copied().unwrap_or(f64::NAN);
    let high = sorted.get(below + 1).copied().unwrap_or(low);
    let share = [0.0, 0.25, 0.5, 0.75][rest];
    low + (high - low) * share
}

impl fmt::Display for Quartiles {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{:.1} ({:.1} … {:.1})",
            self.median, self.lower, self.upper
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[f64], lower: f64, median: f64, upper: f64) {
        assert_eq!(
            Quartiles::of(values),
            Quartiles {
                lower,
                median,
                upper
            }
        );
    }

    #[test]
    fn quartiles_do_not_depend_on_the_order() {
        check(&[5.0, 1.0, 4.0, 2.0, 3.0], 2.0, 3.0, 4.0);
    }

    #[test]
    fn between_two_values_they_are_interpolated() {
        check(&[1.0, 2.0, 3.0, 4.0], 1.75, 2.5, 3.25);
        check(&[7.0], 7.0, 7.0, 7.0);
    }
}
