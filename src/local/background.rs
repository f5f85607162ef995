//! Background: one registry on a thread of its own, for subscribers that no arbiter of the application can serve: actors seen from outside,
//! and streams made on a thread without an arbiter. Started when first needed.

use std::io;
use std::thread;

use actix_rt::System;

use crate::local::error::SubscribeError;
use crate::local::registry::Registry;
use crate::local::shard::Shard;
use crate::local::shard::Shared;
use crate::sync::Arc;
use crate::sync::Mutex;
use crate::sync::lock;

#[derive(Default)]
pub(crate) struct Background {
    started: Mutex<Option<(Arc<Shard>, System)>>,
}

impl Background {
    pub(crate) fn get(&self, shared: &Arc<Shared>) -> Result<(Arc<Shard>, System), SubscribeError> {
        let mut started = lock(&self.started);
        if let Some((shard, system)) = &*started
            && !shard.is_retired()
        {
            return Ok((Arc::clone(shard), system.clone()));
        }
        let shard = shared.add_shard(true).ok_or(SubscribeError::Closed)?;
        let system = match start_thread("actix-pubsub") {
            Ok(system) => system,
            Err(error) => {
                shard.retire();
                return Err(SubscribeError::Background(Arc::new(error)));
            }
        };
        if !Registry::launch(Arc::clone(&shard), system.arbiter(), Some(system.clone())) {
            return Err(SubscribeError::Closed);
        }
        *started = Some((Arc::clone(&shard), system.clone()));
        Ok((shard, system))
    }
}

/// A thread with an actix system of its own; the actor that it is for stops it when it ends.
pub(crate) fn start_thread(name: &str) -> io::Result<System> {
    let (tell, told) = std::sync::mpsc::channel();
    thread::Builder::new().name(String::from(name)).spawn(move || {
        let runner = System::new();
        // The caller waits for this.
        let _ = tell.send(System::current());
        // It ends by `System::stop` only, and there is nobody to tell.
        let _ = runner.run();
    })?;
    told.recv().map_err(|_| io::Error::other("the thread ended before it began"))
}
