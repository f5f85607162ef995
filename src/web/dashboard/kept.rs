//! Kept: one value for all who ask for it at once, made off the arbiters. Knows nothing of what it is.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use actix_web::error::BlockingError;
use actix_web::rt;
use actix_web::rt::time::sleep;
use actix_web::web;
use tokio::sync::Mutex;

/// A value that takes long to make, kept until it is `fresh` no more.
pub(crate) struct Kept<K, T> {
    slot: Arc<Mutex<Option<Slot<K, T>>>>,
    fresh: Duration,
}

struct Slot<K, T> {
    key: K,
    made: Instant,
    value: Arc<T>,
}

impl<K: PartialEq + Send + 'static, T: Send + Sync + 'static> Kept<K, T> {
    pub(crate) fn new(fresh: Duration) -> Self {
        Self { slot: Arc::default(), fresh }
    }

    /// The value of `key`, made on a blocking thread if there is none that is fresh. Who asks meanwhile waits for it, also if whoever asked first has gone.
    pub(crate) async fn get(&self, key: K, make: impl FnOnce() -> T + Send + 'static) -> Result<Arc<T>, BlockingError> {
        let mut slot = Arc::clone(&self.slot).lock_owned().await;
        if let Some(kept) = &*slot
            && kept.key == key
            && kept.made.elapsed() < self.fresh
        {
            return Ok(Arc::clone(&kept.value));
        }
        let value = web::block(move || {
            let value = Arc::new(make());
            *slot = Some(Slot { key, made: Instant::now(), value: Arc::clone(&value) });
            value
        })
        .await?;
        rt::spawn(forget(Arc::clone(&self.slot), self.fresh));
        Ok(value)
    }
}

/// 100,000 subscriptions are some 20 MB, which nobody may ask for again, and take long to drop.
async fn forget<K: Send + 'static, T: Send + Sync + 'static>(slot: Arc<Mutex<Option<Slot<K, T>>>>, fresh: Duration) {
    sleep(fresh).await;
    let mut slot = slot.lock_owned().await;
    if slot.as_ref().is_some_and(|kept| kept.made.elapsed() >= fresh) {
        // There are no threads any more when the process ends: then it is dropped here.
        let _ = web::block(move || slot.take()).await.map(drop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;

    #[test]
    fn who_asks_at_once_gets_one_value_and_it_is_forgotten_after() {
        rt::System::new().block_on(async {
            let made = Arc::new(AtomicU32::new(0));
            let kept = Kept::new(Duration::from_secs(3_600));
            let make = |made: &Arc<AtomicU32>| {
                let made = Arc::clone(made);
                move || made.fetch_add(1, Ordering::SeqCst)
            };
            let both = futures_util::future::join(kept.get('a', make(&made)), kept.get('a', make(&made))).await;
            assert_eq!((*both.0.unwrap(), *both.1.unwrap(), made.load(Ordering::SeqCst)), (0, 0, 1));
            assert_eq!(*kept.get('b', make(&made)).await.unwrap(), 1, "another question");

            let brief = Kept::new(Duration::from_millis(5));
            let weak = Arc::downgrade(&brief.get((), || String::from("long list")).await.unwrap());
            while weak.upgrade().is_some() {
                sleep(Duration::from_millis(1)).await;
            }
        });
    }

    #[test]
    fn a_value_whose_first_asker_has_gone_is_made_for_the_next() {
        rt::System::new().block_on(async {
            let kept = Kept::new(Duration::from_secs(3_600));
            let (tell, told) = std::sync::mpsc::channel::<()>();
            let first = kept.get((), move || told.recv().is_ok());
            assert!(tokio::time::timeout(Duration::from_millis(20), first).await.is_err());
            tell.send(()).unwrap();
            assert!(*kept.get((), || false).await.unwrap(), "it is the first one's");
        });
    }
}
