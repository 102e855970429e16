//! The domain's own global state: a native domain has one vCPU and no upcalls, so a lock that is found taken is a bug
//! (a function that re-enters itself) and is reported as one, instead of hanging.

use spin::mutex::{SpinMutex, SpinMutexGuard};

/// A global that one piece of code uses at a time.
pub struct Local<T>(SpinMutex<T>);

impl<T> Local<T> {
    /// Wraps the initial value.
    pub const fn new(value: T) -> Self {
        Self(SpinMutex::new(value))
    }

    /// Borrows the value; panics when it is borrowed already.
    #[track_caller]
    pub fn borrow(&self) -> SpinMutexGuard<'_, T> {
        self.0.try_lock().expect("global state used by a function that is called while it is in use")
    }

    /// Borrows the value unless it is borrowed already. For the logger and the panic handler.
    pub fn try_borrow(&self) -> Option<SpinMutexGuard<'_, T>> {
        self.0.try_lock()
    }
}
