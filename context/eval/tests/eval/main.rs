//! The evaluation with engines that are rules: what they prefer is known, so what must be found is known too.

mod duplicates;
mod fake;
mod golden;
mod hostile;
mod planted;
mod reading;
mod suggesting;
