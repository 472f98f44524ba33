(module $control
  (type (;0;) (func (param i32) (result i32)))
  (type (;1;) (func (param i32) (result i32 i32)))
  (type (;2;) (func (result i32 i32)))
  (type (;3;) (func (result i32 i32)))
  (global (;0;) (mut i32) i32.const 0)
  (global (;1;) (mut i32) i32.const 0)
  (export "main" (func $main))
  (export "lazaret:stop" (global 0))
  (export "lazaret:depth" (global 1))
  (func $leaf (;0;) (type 0) (param i32) (result i32)
    local.get 0
    i32.const 1
    i32.add
  )
  (func $main (;1;) (type 1) (param i32) (result i32 i32)
    global.get 1
    i32.const 1
    i32.add
    global.set 1
    global.get 1
    i32.const 1000
    i32.gt_u
    if ;; label = @1
      i32.const 2
      global.set 0
      unreachable
    end
    block (type 3) (result i32 i32) ;; label = @1
      block ;; label = @2
        i32.const 1
        drop
      end
      loop ;; label = @2
        local.get 0
        call $leaf
        local.set 0
        local.get 0
        i32.const 10
        i32.lt_s
        br_if 0 (;@2;)
      end
      local.get 0
      if ;; label = @2
        i32.const 1
        i32.const 2
        br 1 (;@1;)
      end
      i32.const 3
      i32.const 4
    end
    global.get 1
    i32.const 1
    i32.sub
    global.set 1
  )
  (func $tail (;2;) (type 2) (result i32 i32)
    global.get 1
    i32.const 1
    i32.add
    global.set 1
    global.get 1
    i32.const 1000
    i32.gt_u
    if ;; label = @1
      i32.const 2
      global.set 0
      unreachable
    end
    block (type 2) (result i32 i32) ;; label = @1
      i32.const 0
      call $leaf
      drop
      i32.const 5
      global.get 1
      i32.const 1
      i32.sub
      global.set 1
      return_call $main
    end
    global.get 1
    i32.const 1
    i32.sub
    global.set 1
  )
)
