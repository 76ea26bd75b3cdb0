//! Behaviour of the judge, the researcher and whole campaigns, in simulation: no training, no clock.

mod judge;
