//! The identity store on disk: import, match, select, swap atomically.
