//! `Steps`: what is told step by step.

use super::journey::{Stage, Step};

/// Totals by step, found without a search.
#[derive(Clone, Debug)]
pub struct Steps<T>(Vec<Option<(Step, T)>>);

impl<T> Default for Steps<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Default> Steps<T> {
    /// The totals of `step`, for adding to.
    pub fn of(&mut self, step: Step) -> &mut T {
        let index = index(step);
        if index >= self.0.len() {
            self.0.resize_with(index + 1, || None);
        }
        let (_, totals) = self.0[index].get_or_insert_with(|| (step, T::default()));
        totals
    }
}

impl<T> Steps<T> {
    /// Steps and totals, in order of the steps.
    pub fn iter(&self) -> impl Iterator<Item = (Step, &T)> {
        let met = self.0.iter().flatten();
        met.map(|(step, totals)| (*step, totals))
    }
}

/// Its place in the order of steps.
fn index(step: Step) -> usize {
    step.leg as usize * (Stage::ClientQueue as usize + 1) + step.stage as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::journey::Leg;

    #[test]
    fn steps_come_in_their_order_each_with_what_was_added_to_it() {
        let step = |leg, stage| Step { leg, stage };
        let met = [
            step(Leg::Answer, Stage::SentAgain),
            step(Leg::Query, Stage::ClientQueue),
            step(Leg::Response, Stage::ClientQueue),
            step(Leg::Query, Stage::ClientQueue),
        ];
        let mut steps = Steps::<u32>::default();
        for step in met {
            *steps.of(step) += 1;
        }
        let told: Vec<_> = steps.iter().map(|(step, count)| (step, *count)).collect();
        assert_eq!(told, [(met[1], 2), (met[0], 1), (met[2], 1)]);
        assert!(told.is_sorted());
    }
}
