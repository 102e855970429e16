//! Whole systems in QEMU, one file a subject. Each test boots its own machine and states in its name what holds.

mod bad_input;
mod demo;
mod dma;
mod drivers;
mod faults;
mod fuzz;
mod guests;
mod interrupts;
mod linux;
mod linux_restart;
mod misbehaviour;
mod policies;
mod primitives;
mod replace;
mod restart;
mod rogue;
mod together;
