;; call fill 4000 5 5000
;; call fill 0 1 0
;; call fill 65536 1 0
;; call fill 65536 1 1
;; call fill 65537 1 0
;; call copy 20000 4000 6000
;; call copy 4001 4000 5000
;; call copy 0 65000 1000
;; call init 30000 2 3
;; call init 30000 2 30
;; call grow 1
;; call grow 70000
;; call size
(module
    (memory (export "memory") 1 5)
    (data $d "0123456789")
    (func (export "fill") (param i32 i32 i32)
        (memory.fill (local.get 0) (local.get 1) (local.get 2)))
    (func (export "copy") (param i32 i32 i32)
        (memory.copy (local.get 0) (local.get 1) (local.get 2)))
    (func (export "init") (param i32 i32 i32)
        (memory.init $d (local.get 0) (local.get 1) (local.get 2)))
    (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
    (func (export "size") (result i32) (memory.size)))
