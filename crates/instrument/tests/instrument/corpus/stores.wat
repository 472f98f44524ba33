;; call all 4090
;; call all 8191
;; call all 60000
(module
    (memory (export "memory") 1)
    (func $seven (result i32) (i32.const 7))
    (func (export "all") (param i32) (local i64 f32)
        (local.set 1 (i64.const -81985529216486896))
        (i32.store8 offset=1 (local.get 0) (call $seven))
        (i32.store16 offset=3 (local.get 0) (i32.const 770))
        (i32.store offset=7 (local.get 0) (i32.const -2))
        (i64.store8 offset=20 (local.get 0) (local.get 1))
        (i64.store16 offset=30 (local.get 0) (local.get 1))
        (i64.store32 offset=40 (local.get 0) (local.get 1))
        (i64.store offset=50 (local.get 0) (local.get 1))
        (f32.store offset=60 (local.get 0) (f32.add (local.get 2) (f32.const 1.5)))
        (f64.store offset=70 (local.get 0) (f64.const 2.5))))
