//! Whether connections were spread evenly over endpoints: Pearson's chi-squared test.

/// What the test says of one Service port's connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uniform {
    /// Connections.
    pub connections: u64,
    /// Endpoints, of which some may have had none.
    pub endpoints: usize,
    /// Sum of squared distances from the even share, in units of that share.
    pub statistic: f64,
    /// With what probability an even spread is at least as uneven as this by chance.
    pub p: f64,
}

/// Fewest connections for each endpoint: with less the statistic is not distributed as
/// chi-squared.
const LEAST: u64 = 5;

/// Tests the connections of each endpoint; `None` for fewer than two endpoints or too few
/// connections.
pub fn uniform(counts: &[u64]) -> Option<Uniform> {
    let connections: u64 = counts.iter().sum();
    let endpoints = counts.len();
    if endpoints < 2 || connections < LEAST * u64::try_from(endpoints).ok()? {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2⁵²")]
    let (even, freedom) = (
        connections as f64 / endpoints as f64,
        (endpoints - 1) as f64,
    );
    let statistic = counts.iter().map(|count| {
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2⁵²")]
        let apart = *count as f64 - even;
        apart * apart / even
    });
    let statistic: f64 = statistic.sum();
    Some(Uniform {
        connections,
        endpoints,
        statistic,
        p: upper_gamma(freedom / 2.0, statistic / 2.0),
    })
}

/// The regularised incomplete gamma function Q(a, x): by its series where that converges quickly,
/// else by its continued fraction (Lentz).
fn upper_gamma(a: f64, x: f64) -> f64 {
    const TERMS: u32 = 1000;
    const SMALL: f64 = 1e-15;
    const TINY: f64 = 1e-300;
    if x <= 0.0 {
        return 1.0;
    }
    let scale = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum, mut over) = (1.0 / a, 1.0 / a, a);
        for _ in 0..TERMS {
            over += 1.0;
            term *= x / over;
            sum += term;
            if term < sum * SMALL {
                break;
            }
        }
        return 1.0 - sum * scale;
    }
    let mut partial = x + 1.0 - a;
    let mut above = 1.0 / TINY;
    let mut below = 1.0 / partial;
    let mut fraction = below;
    for step in 1..TERMS {
        let step = f64::from(step);
        let numerator = -step * (step - a);
        partial += 2.0;
        below = 1.0 / (numerator * below + partial).max(TINY);
        above = (partial + numerator / above).max(TINY);
        let factor = above * below;
        fraction *= factor;
        if (factor - 1.0).abs() < SMALL {
            break;
        }
    }
    scale * fraction
}

/// By Lanczos' approximation (g = 7, n = 9).
fn ln_gamma(x: f64) -> f64 {
    const FIRST: f64 = 0.999_999_999_999_809_9;
    const OTHERS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let mut sum = FIRST;
    let mut n = 1.0;
    for factor in OTHERS {
        sum += factor / (x + n);
        n += 1.0;
    }
    let t = x + 7.5;
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_values_are_those_of_the_tables() {
        let check = |freedom: f64, statistic: f64, p: f64| {
            let found = upper_gamma(freedom / 2.0, statistic / 2.0);
            assert!((found - p).abs() < 1e-6, "{freedom} {statistic}: {found}");
        };
        check(1.0, 3.841_458_8, 0.05);
        check(2.0, 9.210_340_4, 0.01);
        check(9.0, 27.877_164_9, 0.001);
        check(9.0, 2.0, 0.991_467_6);
        check(100.0, 100.0, 0.481_191_7);
    }

    #[test]
    fn an_even_spread_is_likely_and_one_pod_with_all_of_it_is_not() {
        let even = uniform(&[33, 34, 33]).unwrap();
        assert!(even.p > 0.9, "{even:?}");
        assert_eq!(even.connections, 100);
        let one = uniform(&[100, 0, 0]).unwrap();
        assert!(one.p < 1e-9, "{one:?}");
    }

    #[test]
    fn few_connections_tell_nothing() {
        assert_eq!(uniform(&[3, 0, 0]), None);
        assert_eq!(uniform(&[100]), None);
        assert_eq!(uniform(&[]), None);
    }
}
