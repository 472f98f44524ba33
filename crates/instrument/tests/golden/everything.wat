(module
  (type (;0;) (func))
  (type (;1;) (func (param i32) (result i32)))
  (type (;2;) (func (param i64 i64)))
  (type (;3;) (func (param i64) (result i64)))
  (type (;4;) (func))
  (table (;0;) 1 funcref)
  (memory (;0;) i64 1 2)
  (memory (;1;) 65 65)
  (global (;0;) i32 i32.const 1)
  (global (;1;) (mut i64) i64.const 0)
  (global (;2;) (mut i64) i64.const 0)
  (global (;3;) (mut i32) i32.const 0)
  (global (;4;) (mut i32) i32.const 0)
  (export "lazaret:fuel" (global 2))
  (export "lazaret:stop" (global 3))
  (export "lazaret:depth" (global 4))
  (export "lazaret:global:0" (global 1))
  (export "lazaret:init" (func $lazaret:init))
  (export "lazaret:start" (func $start))
  (export "lazaret:memory" (memory 0))
  (export "lazaret:cards" (memory 1))
  (elem (;0;) (i32.const 0) func $start)
  (func $start (;0;) (type 0)
    (local i64 i32 i32 i64 i64)
    global.get 2
    i64.const 49
    i64.sub
    global.set 2
    i64.const 0
    i32.const 0
    i32.const 0
    call $lazaret:charge-bytes-32
    local.set 2
    local.set 1
    local.set 0
    local.get 0
    local.get 2
    i64.extend_i32_u
    call $lazaret:mark-cards
    local.get 0
    local.get 1
    local.get 2
    memory.init 2
    i64.const 0
    i32.const 7
    i64.const 3
    call $lazaret:charge-bytes-64
    local.set 3
    local.set 1
    local.set 0
    local.get 0
    local.get 3
    call $lazaret:mark-cards
    local.get 0
    local.get 1
    local.get 3
    memory.fill
    i64.const 1
    global.get 1
    local.set 4
    local.set 0
    local.get 0
    i64.const 16
    i64.add
    i64.const 12
    i64.shr_u
    i32.wrap_i64
    i32.const 1
    i32.store8 1
    local.get 0
    i64.const 23
    i64.add
    i64.const 12
    i64.shr_u
    i32.wrap_i64
    i32.const 1
    i32.store8 1
    local.get 0
    local.get 4
    i64.store offset=16
  )
  (func $lazaret:charge-bytes-32 (;1;) (type 1) (param i32) (result i32)
    global.get 2
    local.get 0
    i64.extend_i32_u
    i64.const 3
    i64.shr_u
    i64.sub
    global.set 2
    global.get 2
    i64.const 0
    i64.lt_s
    if ;; label = @1
      i32.const 1
      global.set 3
      unreachable
    end
    local.get 0
  )
  (func $lazaret:mark-cards (;2;) (type 2) (param i64 i64)
    (local i64)
    local.get 1
    i64.eqz
    if ;; label = @1
      return
    end
    local.get 0
    i64.const 12
    i64.shr_u
    local.tee 2
    i32.wrap_i64
    i32.const 1
    local.get 0
    local.get 1
    i64.add
    i64.const 1
    i64.sub
    i64.const 12
    i64.shr_u
    local.get 2
    i64.sub
    i64.const 1
    i64.add
    i32.wrap_i64
    memory.fill 1
  )
  (func $lazaret:charge-bytes-64 (;3;) (type 3) (param i64) (result i64)
    global.get 2
    local.get 0
    i64.const 3
    i64.shr_u
    i64.sub
    global.set 2
    global.get 2
    i64.const 0
    i64.lt_s
    if ;; label = @1
      i32.const 1
      global.set 3
      unreachable
    end
    local.get 0
  )
  (func $lazaret:init (;4;) (type 4)
    i64.const 8
    i64.const 6
    call $lazaret:mark-cards
    i64.const 8
    i32.const 0
    i32.const 6
    memory.init 0
  )
  (data (;0;) "active")
  (data (;1;) "passive")
  (data (;2;) "")
)
