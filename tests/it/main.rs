use actix::prelude::*;
use actix_pubsub::*;
struct S(PubSub, Vec<u32>, u64);
impl Actor for S {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Self::Context) {
        self.0.subscribe::<u32, _>(ctx, "t").unwrap();
        self.0.subscribe::<String, _>(ctx, "t").unwrap();
    }
}
impl Handler<Event<u32>> for S {
    type Result = ();
    fn handle(&mut self, e: Event<u32>, _: &mut Self::Context) {
        self.1.push(*e);
        self.2 += e.missed();
    }
}
impl Handler<Event<String>> for S {
    type Result = ();
    fn handle(&mut self, e: Event<String>, _: &mut Self::Context) {
        self.1.push(e.len() as u32);
    }
}
struct Get;
impl Message for Get {
    type Result = (Vec<u32>, u64);
}
impl Handler<Get> for S {
    type Result = MessageResult<Get>;
    fn handle(&mut self, _: Get, _: &mut Self::Context) -> MessageResult<Get> {
        MessageResult((self.1.clone(), self.2))
    }
}
#[test]
fn smoke() {
    System::new().block_on(async {
        let p = PubSub::new();
        let a = S(p.clone(), vec![], 0).start();
        a.send(Get).await.unwrap();
        for i in 0..200u32 {
            let r = p.local_broadcast("t", i).unwrap();
            assert_eq!(r.ports, 1);
            if i % 50 == 0 {
                p.local_broadcast("t", "x".repeat(1000 + i as usize)).unwrap();
            }
        }
        for _ in 0..10 {
            a.send(Get).await.unwrap();
        }
        println!("{:?}", a.send(Get).await.unwrap());
        println!("{}", serde_json::to_string(&p.stats()).unwrap());
        let sa = SyncArbiter::start(1, || Sy);
        p.subscribe_addr::<u32, _>(&sa, "t").unwrap();
        assert_eq!(p.subscribers("t"), 3);
        for i in 0..100u32 {
            p.local_broadcast("t", i).unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        println!("{}", serde_json::to_string(&p.stats()).unwrap());
        drop(a);
        actix::clock::timeout(std::time::Duration::from_secs(2), p.shutdown()).await.unwrap();
        println!("{}", serde_json::to_string(&p.stats()).unwrap());
    });
}
struct Sy;
impl Actor for Sy {
    type Context = SyncContext<Self>;
}
impl Handler<Event<u32>> for Sy {
    type Result = ();
    fn handle(&mut self, e: Event<u32>, _: &mut Self::Context) {
        print!("{} ", *e);
    }
}
