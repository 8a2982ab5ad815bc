//! Shares, and weights that give them.

use crate::vocabulary::share::Share;

/// Totals to which weights are scaled when their own does not fit, smallest first.
const TOTALS: [u64; 3] = [100, 1_000, 10_000];

/// What one backend is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DesiredShare {
    /// This share.
    Share(Share),
    /// Its part of what the named ones leave, in proportion to its weight.
    Rest(u64),
}

/// Weights for what is wanted, and their total. The total `now` is kept when it gives every named share exactly, and the
/// others theirs as exactly as possible; else the smallest of 100, 1000 and 10000 that does. Rounding is by largest
/// remainder; no backend with a share gets the weight 0.
pub fn weights(now: u64, wanted: &[DesiredShare]) -> (Vec<u64>, u64) {
    let named: u64 = wanted
        .iter()
        .map(|one| if let DesiredShare::Share(share) = one { u64::from(share.hundredths()) } else { 0 })
        .sum();
    let rest = u128::from(u64::from(Share::ALL.hundredths()).saturating_sub(named));
    let of_rest: u128 =
        wanted.iter().map(|one| if let DesiredShare::Rest(weight) = one { u128::from(*weight) } else { 0 }).sum();
    // Every share as a fraction of one denominator.
    let scale = of_rest.max(1);
    let all = u128::from(Share::ALL.hundredths()) * scale;
    let parts: Vec<u128> = wanted
        .iter()
        .map(|one| match one {
            DesiredShare::Share(share) => u128::from(share.hundredths()) * scale,
            DesiredShare::Rest(weight) => rest * u128::from(*weight),
        })
        .collect();
    let is_whole = |total: u64, part: u128| (part * u128::from(total)).is_multiple_of(all);
    let fits = |total: u64, every: bool| {
        let exact = wanted.iter().zip(&parts).all(|(one, part)| {
            let must = every || matches!(one, DesiredShare::Share(_));
            !must || is_whole(total, *part)
        });
        let given = apportion(total, &parts, all);
        exact && given.iter().zip(&parts).all(|(weight, part)| *part == 0 || *weight > 0)
    };
    let totals = || std::iter::once(now).chain(TOTALS).filter(|total| *total > 0);
    let total = totals()
        .find(|total| fits(*total, true))
        .or_else(|| totals().find(|total| fits(*total, false)))
        .unwrap_or(TOTALS[TOTALS.len() - 1]);
    (apportion(total, &parts, all), total)
}

/// Whole numbers that add up to `total`, by largest remainder; of equal ones the first.
fn apportion(total: u64, parts: &[u128], all: u128) -> Vec<u64> {
    let exact = |part: &u128| *part * u128::from(total);
    let mut given: Vec<u64> = parts.iter().map(|part| u64::try_from(exact(part) / all).unwrap_or(u64::MAX)).collect();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(exact(&parts[*at]) % all));
    let left = total.saturating_sub(given.iter().sum());
    for at in order.into_iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
        given[at] += 1;
    }
    given
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(text: &str) -> Share {
        text.parse().unwrap()
    }

    #[test]
    fn the_total_is_kept_where_it_fits() {
        use DesiredShare::{Rest, Share as Named};
        for (now, wanted, expected) in [
            (100, vec![Rest(90), Named(share("25"))], (vec![75, 25], 100)),
            (10, vec![Rest(9), Named(share("20"))], (vec![8, 2], 10)),
            (10, vec![Rest(9), Named(share("25"))], (vec![75, 25], 100)),
            (100, vec![Rest(90), Named(share("12.5"))], (vec![875, 125], 1000)),
            (100, vec![Rest(90), Named(share("0.01"))], (vec![9999, 1], 10_000)),
            (1, vec![Rest(1), Named(share("100"))], (vec![0, 1], 1)),
            // Others keep their proportion: 2 to 1 of 70 is no whole number in 100.
            (100, vec![Rest(60), Rest(30), Named(share("30"))], (vec![47, 23, 30], 100)),
            (100, vec![Rest(60), Rest(30), Named(share("10"))], (vec![60, 30, 10], 100)),
            // One of 999 must not lose its last call.
            (1000, vec![Rest(999), Rest(1), Named(share("0"))], (vec![999, 1, 0], 1000)),
            (100, vec![Rest(99), Rest(1), Named(share("50"))], (vec![495, 5, 500], 1000)),
        ] {
            assert_eq!(weights(now, &wanted), expected, "{now} {wanted:?}");
        }
    }

    proptest! {
        #[test]
        fn named_shares_are_exact_and_all_is_given_away(
            now in 0_u64..5_000,
            first in 0_u32..=10_000,
            second in 0_u32..=10_000,
            rest in prop::collection::vec(1_u64..1_000, 1..6),
        ) {
            let first = Share::from_hundredths(first);
            let second = Share::from_hundredths(second.min(first.rest().hundredths()));
            let mut wanted = vec![DesiredShare::Share(first), DesiredShare::Share(second)];
            wanted.extend(rest.iter().map(|weight| DesiredShare::Rest(*weight)));
            let (given, total) = weights(now, &wanted);
            prop_assert_eq!(given.iter().sum::<u64>(), total);
            for (at, share) in [first, second].into_iter().enumerate() {
                prop_assert_eq!(given[at] * 10_000, u64::from(share.hundredths()) * total);
            }
            // The others are within one of their exact part.
            let (left, of) = (u64::from(Share::from_hundredths(first.hundredths() + second.hundredths()).rest().hundredths()), rest.iter().sum::<u64>());
            for (weight, old) in given[2..].iter().zip(&rest) {
                let exact = (left * old * total) as f64 / (10_000 * of) as f64;
                prop_assert!((*weight as f64 - exact).abs() < 1.0 + 1e-9, "{} is not about {}", weight, exact);
            }
        }
    }
}
